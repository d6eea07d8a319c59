"""`offramp compare`: analyses of any table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from command import Cli, refused

from offramp.analysis.stats import MOST_GROUPS
from offramp.analysis.stats.pairwise import games_howell, tukey
from offramp.api.results.stats import stats

OPTIONS = ("--value", "accuracy", "--group", "strategy", "--block", "seed")


def table(folder: Path) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = [
        (model, name, seed, node, round(base + 0.01 * generator.normal(), 4))
        for model in ("m1", "m2")
        for name, node, base in (("joint", "j", 0.9), ("None", "n", 0.5), ("separate", "s", 0.5))
        for seed in range(42, 47)
    ]
    frame = pd.DataFrame(rows, columns=["model", "strategy", "seed", "node", "accuracy"])
    frame.sample(frac=1, random_state=1).to_csv(folder / "in.csv", index=False)
    frame.to_parquet(folder / "in.parquet")
    return frame


def test_csv_and_parquet_give_the_same_answer(cli: Cli, tmp_path: Path) -> None:
    table(tmp_path)
    options = [*OPTIONS, "--by", "model", "--json"]
    csv, parquet = (cli("compare", f"in.{x}", *options).out for x in ("csv", "parquet"))
    assert csv == parquet
    answer = json.loads(csv)
    assert [cell["by"] for cell in answer["analyses"]] == [{"model": "m1"}, {"model": "m2"}]
    first = answer["analyses"][0]
    assert first["default"] == "over blocks"
    assert first["over_blocks"]["order"]["text"].startswith("joint >")
    assert {m["group"] for m in first["means"]} == {"joint", "None", "separate"}


def test_the_text_says_default_assumptions_rule_and_direction(cli: Cli, tmp_path: Path) -> None:
    table(tmp_path)
    more = ("--where", "model=m1", "--better", "higher", "--same", "node")
    shown = cli("compare", "in.csv", *OPTIONS, *more).out
    assert "DEFAULT: repeated measures over seed" in shown
    assert "BESIDE IT: one-way analysis, the paper's way" in shown
    assert shown.count("Assumes: ") >= 2
    assert "significantly higher (better) than" in shown
    assert "< 1e-12" in shown  # Tukey's p of joint against the rest


def test_more_groups_than_anybody_compares_are_refused_at_once(cli: Cli, tmp_path: Path) -> None:
    rows = [(f"g{group}", seed, 0.5) for group in range(MOST_GROUPS + 1) for seed in range(2)]
    frame = pd.DataFrame(rows, columns=["strategy", "seed", "accuracy"])
    frame.to_csv(tmp_path / "in.csv", index=False)
    answer = cli("compare", "in.csv", *OPTIONS)
    refused(answer, "has 101 groups, and at most 100 are compared")
    frame[frame["strategy"] != "g0"].head(20).to_csv(tmp_path / "in.csv", index=False)
    assert cli("compare", "in.csv", *OPTIONS).code == 0


def test_each_analysis_is_told(tmp_path: Path) -> None:
    table(tmp_path)
    steps: list[str] = []
    columns = {"value": "accuracy", "group": "strategy", "block": "seed"}
    stats(tmp_path / "in.csv", **columns, by="model", watch=steps.append)
    assert [step for step in steps if "anal" in step] == ["1 analysis", "2 analyses"]
    assert steps.count("3 of 3 pairs") >= 2


def test_each_pair_of_many_groups_is_told() -> None:
    groups = list(np.random.default_rng(0).normal(size=(3, 4)))
    for test in (tukey, games_howell):
        steps: list[str] = []
        test(["a", "b", "c"], groups, 0.05, steps.append)
        assert steps == ["1 of 3 pairs", "2 of 3 pairs", "3 of 3 pairs"]


def test_a_value_that_cannot_be_tested_is_no_failure(cli: Cli) -> None:
    Path("one.csv").write_text("strategy,accuracy,seed\na,0.5,1\nb,nan,1\nc,0.7,1\n")
    answer = cli("compare", "one.csv", *OPTIONS)
    shown = answer.out
    assert answer.code == 0
    assert "not tested: there is no more than one block" in shown
    assert "1 value is missing or not finite and was left out: b in 1" in shown


def test_tables_that_cannot_be_read(cli: Cli) -> None:
    for name in ("a.csv", "a.parquet"):
        Path(name).touch()
        refused(cli("compare", name, *OPTIONS), "cannot be read")
