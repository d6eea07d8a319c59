"""`offramp report --figures` and `store pack`."""

from __future__ import annotations

import json
from pathlib import Path

from command import Cli, ok


def test_figures_of_a_store_and_of_its_pack(studied: Cli) -> None:
    packing = ok(studied("store", "pack", "runs", "--out", "packed"))
    assert packing.out.startswith("6 trials packed into packed")
    only = ("--only", "accuracy-by-exit,time-total", "--only", "significance", "--format", "json")
    one = studied("report", "--figures", "runs", "--out", "one", *only)
    other = studied("report", "--figures", "packed", "--out", "other", *only)
    assert one.code == other.code == 0, one.err + other.err
    assert "3 figures as json in one" in one.out and "[1/3] accuracy-by-exit" in one.err
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


def test_a_pack_of_some_strategies(studied: Cli) -> None:
    """Has their trials and phases, no others, and what the whole pack says of them."""
    whole, some = Path("whole"), Path("some")
    assert studied("store", "pack", "runs", "--out", whole).code == 0
    packing = studied(
        "store", "pack", whole, "--strategy", "joint", "--strategy", "baseline", "--out", some
    )
    assert packing.out.startswith("4 trials packed into some"), packing
    one, other = (json.loads((folder / "trials.json").read_text()) for folder in (whole, some))
    labels = {id: trial["manifest"]["strategy"] for id, trial in one["trials"].items()}
    assert sorted(set(labels.values())) == ["baseline", "joint", "two-stage"]
    assert other["trials"] == {id: one["trials"][id] for id in labels if labels[id] != "two-stage"}
    assert other["nodes"].items() < one["nodes"].items()
    told = studied("report", "--tables", some, "--show", "main")
    assert told.code == 0 and "joint" in told.out and "two-stage" not in told.out
