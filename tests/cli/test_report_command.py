"""`offramp report`: a page, figures, tables or numbers; and `store pack`."""

import csv
import html
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest
from command import Cli, data, narrow, ok, without
from syrupy.assertion import SnapshotAssertion

from offramp.report.figures import FIGURES
from offramp.report.tables import TABLES

TITLE = "Half & half"
MAIN = "main-digits-cnn-digits"
TWO_FIGURES = "accuracy-by-exit,time-total"


def texts(page: str, words: str) -> list[str]:
    """What a page has between tags, where it has these words."""
    return [text.strip() for text in re.findall(r">([^<>]+)<", page) if words in text]


def files(folder: str) -> dict[str, bytes]:
    root = Path(folder)
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.long
def test_a_report_with_torch_out_of_reach(studied: Cli, snapshot: SnapshotAssertion) -> None:
    """In a process of its own, figures drawn in others."""
    assert studied("--version").code == 0  # the folder is a copy of a finished study's
    (answer,) = without("torch torchvision timm", ["report", "runs", "--format", "svg", "--quiet"])
    assert answer.code == 0 and answer.err == "", answer.err
    last, _, _ = answer.out.splitlines()[-1].partition(" (")
    page = Path("report/index.html").read_text(encoding="utf-8")
    assert [last, *texts(page, " · 6 trials"), *texts(page, "Nothing: ")] == snapshot
    for section in ("answer", "compute", "rq1", "rq2", "more", "claims", "how"):
        assert f'<section id="{section}"' in page
    drawn = {path.stem for path in Path("report/figures").iterdir()}
    assert drawn == {path.name.removesuffix(".vl.json") for path in Path("report/data").glob("*.json")}
    assert len(drawn) > 5


def test_what_is_missing_is_said_and_the_same_store_gives_the_same_bytes(
    studied: Cli, snapshot: SnapshotAssertion
) -> None:
    trial = next(Path("runs/trials").glob("two-stage-*-s2-*"))
    shutil.rmtree(trial)
    for out in ("again", "report"):
        answer = ok(studied("report", "runs", "--format", "none", "--title", TITLE, "--out", out))
    assert files("again") == files("report")
    page = Path("report/index.html").read_text(encoding="utf-8")
    told = [*texts(page, "Missing or left out"), *texts(page, "lacks seed")]
    assert [answer.err.splitlines()[-1], *told] == snapshot
    assert f'<h1 id="title">{html.escape(TITLE)}</h1>' in page


@pytest.mark.long
def test_several_stores_count_as_one(studied: Cli) -> None:
    ok(studied("run", "s.yaml", "--store", "more", "--set", "seeds=[2, 3]"))
    answer = ok(studied("report", "runs", "more", "--format", "none", "--json"))
    found = json.loads(answer.out)
    assert found["page"] == "report/index.html" and found["missing"] == []
    page = Path("report/index.html").read_text(encoding="utf-8")
    assert "3 seeds · 9 trials" in page  # seed 2, which both have, counts once
    assert "<dd>1, 2, 3</dd>" in page
    for out, sources in (("a", "runs"), ("b", "more"), ("all", "runs more"), ("ab", "a b")):
        answer = ok(studied("store", "pack", *sources.split(), "--out", out))
    assert answer.out.startswith("9 trials packed")
    assert files("ab") == files("all") != files("a")


def test_figures_of_a_store_and_of_its_pack(studied: Cli, snapshot: SnapshotAssertion) -> None:
    packing = ok(studied("store", "pack", "runs", "--out", "packed"))
    assert packing.out.split(",")[0] == snapshot(name="pack")
    only = ("--only", TWO_FIGURES, "--only", "significance", "--format", "json")
    one = studied("report", "--figures", "runs", "--out", "one", *only)
    other = studied("report", "--figures", "packed", "--out", "other", *only)
    assert one.code == other.code == 0, one.err + other.err
    assert one.out == snapshot(name="figures") and "[1/3] accuracy-by-exit" in one.err
    names = sorted(p.name for p in Path("one").iterdir())
    assert names == sorted(p.name for p in Path("other").iterdir()) and len(names) == 4
    for name in names:
        assert (Path("one") / name).read_bytes() == (Path("other") / name).read_bytes()
    captions = Path("one/captions.md").read_text()
    assert "(paper's Fig. 14)" in captions and "Student's t" not in captions.split("time-total")[1][:200]


def test_answers_for_programs(studied: Cli) -> None:
    answer = studied(
        "report", "--figures", "runs", "--only", "memory-power", "--format", "json", "--json"
    )
    found = json.loads(answer.out)
    assert answer.code == 0 and found["missing"] == []
    assert [f["paper"] for f in found["figures"]] == ["Figs. 15, 16, 17"]
    assert all(Path(file).is_file() for file in found["files"])
    packing = json.loads(studied("store", "pack", "runs", "--out", "packed", "--json").out)
    assert packing["trials"] == 6 and set(packing["bytes"]) == {
        *("README.md", "logits.npz", "table.parquet", "trials.json")
    }


def test_a_pack_of_some_strategies(studied: Cli, snapshot: SnapshotAssertion) -> None:
    """Has their trials and phases, no others, and what the whole pack says of them."""
    whole, some = Path("whole"), Path("some")
    assert studied("store", "pack", "runs", "--out", whole).code == 0
    words = ("--strategy", "joint", "--strategy", "baseline", "--out", some)
    packing = ok(studied("store", "pack", whole, *words))
    assert packing.out.split(",")[0] == snapshot
    one, other = (json.loads((folder / "trials.json").read_text()) for folder in (whole, some))
    labels = {id: trial["manifest"]["strategy"] for id, trial in one["trials"].items()}
    assert sorted(set(labels.values())) == ["baseline", "joint", "two-stage"]
    assert other["trials"] == {id: one["trials"][id] for id in labels if labels[id] != "two-stage"}
    assert other["nodes"].items() < one["nodes"].items()
    told = studied("report", "--tables", some, "--show", "main")
    assert told.code == 0 and "joint" in told.out and "two-stage" not in told.out


@pytest.mark.long
def test_writes_every_table_in_every_format(studied: Cli, tmp_path: Path) -> None:
    said = ok(studied("report", "--tables", "runs", "--out", "paper"))
    names = {path.stem for path in (tmp_path / "paper").iterdir()}
    assert {MAIN, "anova", "decision", "guidelines", "baseline"} <= names
    assert len(list((tmp_path / "paper").iterdir())) == 3 * len(names)
    assert f"{len(names)} tables in {3 * len(names)} files" in said.out
    frame = pd.read_csv(tmp_path / "paper" / f"{MAIN}.csv").set_index("strategy")
    assert list(frame.index) == ["baseline", "joint", "two-stage"]
    assert frame["seeds"].tolist() == [2, 2, 2]
    # Two-stage trains the baseline's backbone, so its final exit is the baseline's.
    assert frame["exit_3"]["baseline"] == frame["exit_3"]["two-stage"]


def test_only_some_and_one_format(studied: Cli, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    ok(studied("report", "--tables", "runs", "--only", "anova", "--only", "baseline", "--format", "md"))
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"anova.md", "baseline.md"}
    said = studied("report", "--tables", "runs", "--only", "anova", "--format", "md", "--out", "one")
    assert said.out == snapshot


def test_show_prints_on_80_columns_and_writes_nothing(
    studied: Cli, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    before = sorted(tmp_path.iterdir())
    said = studied("report", "--tables", "runs", *(word for name in TABLES for word in ("--show", name)))
    assert said.code == 0, said.err
    assert max(len(line) for line in said.out.splitlines()) <= 80
    assert "…" not in said.out.replace("1, 2, …", "")  # nothing is cut
    assert re.findall(r"^Accuracy, .*", said.out, re.MULTILINE) == snapshot
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
