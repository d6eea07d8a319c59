from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import Cli, ok, without


def files(folder: str) -> dict[str, bytes]:
    root = Path(folder)
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.long
def test_a_report_with_torch_out_of_reach(studied: Cli) -> None:
    """In a process of its own, figures drawn in others."""
    assert studied("--version").code == 0  # the folder is a copy of a finished study's
    (answer,) = without("torch torchvision timm", ["report", "runs", "--format", "svg", "--quiet"])
    assert answer.code == 0 and answer.err == "", answer.err
    last = answer.out.splitlines()[-1]
    assert last.startswith("Open report/index.html (")
    page = Path("report/index.html").read_text(encoding="utf-8")
    early = "2 strategies with early exits, baseline without"
    assert f"{early} · digits-cnn on digits · 2 seeds · 6 trials" in page
    assert "Nothing: every strategy has every seed." in page
    for section in ("answer", "compute", "rq1", "rq2", "more", "claims", "how"):
        assert f'<section id="{section}"' in page
    drawn = {path.stem for path in Path("report/figures").iterdir()}
    assert drawn == {path.name.removesuffix(".vl.json") for path in Path("report/data").glob("*.json")}
    assert len(drawn) > 5


@pytest.mark.long
def test_a_pack_gives_the_same_tables(studied: Cli) -> None:
    assert studied("store", "pack", "runs", "--out", "packed").code == 0
    for store in ("runs", "packed"):
        ok(studied("report", store, "--out", f"of-{store}", "--format", "none"))
    assert set(files("of-runs")) == set(files("of-packed"))


def test_what_is_missing_is_said_and_the_same_store_gives_the_same_bytes(studied: Cli) -> None:
    trial = next(Path("runs/trials").glob("two-stage-*-s2-*"))
    shutil.rmtree(trial)
    for out in ("again", "report"):
        answer = studied("report", "runs", "--format", "none", "--title", "Half & half", "--out", out)
        assert answer.code == 0, answer.err
    assert files("again") == files("report")
    assert "Missing: two-stage of digits-cnn on digits lacks seed 2." in answer.err
    page = Path("report/index.html").read_text(encoding="utf-8")
    assert "Missing or left out." in page
    assert page.count("Two-stage of digits-cnn on digits lacks seed 2.") == 2
    assert '<h1 id="title">Half &amp; half</h1>' in page


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
