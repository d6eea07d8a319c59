"""`offramp report --tables` on a store that was really run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest
from command import Cli, ok

from offramp.report.figures import FIGURES
from offramp.report.tables import TABLES


@pytest.mark.long
def test_writes_every_table_in_every_format(studied: Cli, tmp_path: Path) -> None:
    said = ok(studied("report", "--tables", "runs", "--out", "paper"))
    names = {path.stem for path in (tmp_path / "paper").iterdir()}
    assert {"main-digits-cnn-digits", "anova", "decision", "guidelines", "baseline"} <= names
    assert len(list((tmp_path / "paper").iterdir())) == 3 * len(names)
    assert f"{len(names)} tables in {3 * len(names)} files" in said.out
    frame = pd.read_csv(tmp_path / "paper" / "main-digits-cnn-digits.csv").set_index("strategy")
    assert list(frame.index) == ["baseline", "joint", "two-stage"]
    assert frame["seeds"].tolist() == [2, 2, 2]
    # Two-stage trains the baseline's backbone, so its final exit is the baseline's.
    assert frame["exit_3"]["baseline"] == frame["exit_3"]["two-stage"]


@pytest.mark.long
def test_twice_gives_the_same_bytes(studied: Cli, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        assert studied("report", "--tables", "runs", "--out", folder).code == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_only_some_and_one_format(studied: Cli, tmp_path: Path) -> None:
    ok(studied("report", "--tables", "runs", "--only", "anova", "--only", "baseline", "--format", "md"))
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"anova.md", "baseline.md"}
    said = studied("report", "--tables", "runs", "--only", "anova", "--format", "md", "--out", "one")
    assert "1 table in 1 file: one" in said.out


def test_show_prints_on_80_columns_and_writes_nothing(studied: Cli, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    said = studied("report", "--tables", "runs", *(word for name in TABLES for word in ("--show", name)))
    assert said.code == 0, said.err
    assert max(len(line) for line in said.out.splitlines()) <= 80
    assert "…" not in said.out.replace("1, 2, …", "")  # nothing is cut
    assert "Accuracy, compute and time: digits-cnn, digits" in said.out
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("flag", "names"), [("--tables", TABLES), ("--figures", FIGURES)])
def test_the_list_names_all_and_needs_no_store(flag: str, names: Iterable[str], cli: Cli) -> None:
    answer = cli("report", flag, "--list")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert [name for name in names if any(line.startswith(f"{name} ") for line in lines)] == [*names]


def test_json_has_the_values_unrounded(studied: Cli, tmp_path: Path) -> None:
    table = json.loads(studied("report", "--tables", "runs", "--show", "main", "--json").out)["tables"][
        0
    ]
    assert [row["strategy"] for row in table["rows"]] == ["baseline", "joint", "two-stage"]
    assert 0 <= table["rows"][1]["exit_1"] <= 1
    words = ("--only", "main", "--out", str(tmp_path / "t"), "--json")
    written = json.loads(studied("report", "--tables", "runs", *words).out)
    assert len(written["files"]) == 3 and all(Path(file).exists() for file in written["files"])
