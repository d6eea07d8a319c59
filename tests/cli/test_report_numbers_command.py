"""`offramp report --numbers FILE`."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
from command import Cli, data, narrow


def test_numbers_of_all_trials(studied: Cli) -> None:
    said = data(studied("report", "--numbers", "t.parquet", "--json"))
    frame = pd.read_parquet("t.parquet")
    assert said == {"out": "t.parquet", "rows": len(frame), "trials": 6}
    columns = ["trial", "strategy", "model", "data", "seed"]
    columns += ["phase", "exit", "split", "epoch", "metric", "value", "source", "measured"]
    assert list(frame.columns) == columns
    assert f"{len(frame)} rows of 6 trials" in narrow(studied("report", "--numbers", "t.csv"))
    with Path("t.csv").open() as file:
        assert next(csv.reader(file)) == columns and sum(1 for _ in file) == len(frame)


def test_several_stores_and_packs_are_one_table(studied: Cli) -> None:
    """A trial that two of them have stands in it once."""
    whole = data(studied("report", "--numbers", "t.parquet", "--json"))
    assert studied("store", "pack", "--strategy", "joint", "--out", "packed").code == 0
    said = data(studied("report", "packed", "runs", "--numbers", "both.parquet", "--json"))
    assert said == whole | {"out": "both.parquet"}
    both, alone = (
        pd.read_parquet(f"{name}.parquet").sort_values("trial", kind="stable", ignore_index=True)
        for name in ("both", "t")
    )
    pd.testing.assert_frame_equal(both, alone)
    said = data(studied("report", "packed", "--numbers", "t.csv", "--json"))
    assert said["trials"] == 2 and set(pd.read_csv("t.csv")["strategy"]) == {"joint"}
