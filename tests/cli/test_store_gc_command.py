"""`offramp store gc`."""

from __future__ import annotations

import json
from pathlib import Path

from command import Cli, data, keys

from offramp.store.store import Store


def test_gc_takes_what_no_trial_needs(studied: Cli) -> None:
    for trial in Path("runs/trials").glob("joint-*-s1-*"):
        trial.rename(Path(trial.name))
    before = keys()
    would = data(studied("store", "gc", "--dry-run", "--json"))
    (node,) = [path for path in would["paths"] if "/nodes/" in path]
    assert would["removed"] is False and would["bytes"] > 0 and keys() == before
    text = studied("store", "gc", "--dry-run").out
    assert node in text and "Would free" in text and ".lock" not in text
    assert data(studied("store", "gc", "--json"))["removed"] is True
    assert keys() == sorted(set(before) - {Path(node).name})
    assert "Freed 0 B." in studied("store", "gc").out


def test_gc_keeps_unfinished_work_unless_told(studied: Cli) -> None:
    for trial in Path("runs/trials").glob("joint-*-s1-*"):
        nodes = json.loads((trial / "trial.json").read_text())["manifest"]["phases"]
        Store(Path("runs")).plan_trial(trial.name, [node["node"] for node in nodes])
        trial.rename(Path(trial.name))
    before = keys()
    assert data(studied("status", "--json"))["unfinished"]
    studied("store", "gc")
    assert keys() == before
    studied("store", "gc", "--abandon")
    assert len(keys()) == len(before) - 1
