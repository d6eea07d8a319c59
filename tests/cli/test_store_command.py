"""`offramp store copy` and `gc`, and every command on a store in an object store."""

import json
import re
from pathlib import Path

import pytest
from command import Cli, data, keys, ok

from offramp.store.store import Store

BUNDLE = ("--policy", "policy.json", "--out", "bundle", "--no-measure", "--anyway")
STATS = (
    *("--value", "value", "--group", "strategy", "--block", "seed", "--by", "exit"),
    *("--where", "metric=accuracy", "--where", "phase=final", "--where", "split=test"),
)
TARGET = ("--max-accuracy-loss", "0.5", "--anyway")


FEW = ("status", "show", "store", "run")
"""Commands that together read and write all that a store has."""


@pytest.mark.journey
@pytest.mark.parametrize("few", [True, pytest.param(False, marks=pytest.mark.long)], ids=["few", "all"])
def test_every_command_says_the_same_of_an_object_store(few: bool, s3: str, studied: Cli) -> None:
    folder = str(Path("runs").rename("in-a-folder"))
    said = data(studied("store", "copy", folder, s3, "--json"))
    assert said["copied"] > 9 and said["there"] == 0 and said["damaged"] == []
    trial = Store(s3).trials()[-1]
    assert "records indexed in" in studied("store", "index", s3).out
    assert data(studied("store", "index", s3, "--json"))["indexed"] == 0, "nothing is new"
    commands: list[tuple[str, ...]] = [
        ("status", "--json"),
        ("show", trial, "--json"),
        ("show", Store(s3).nodes()[0]),
        ("compare", "baseline", "joint", "--json"),
        ("claims", "--json"),
        ("recommend", "--json"),
        ("store", "pack", "--json", "--out", "out"),
        ("report", "--numbers", "table.parquet"),
        ("report", "--tables", "--out", "tables"),
        ("calibrate", trial, *TARGET, "--out", "policy-{}.json"),
        ("run", "s.yaml", "--json"),
        ("store", "gc", "--json"),
    ]
    for command in commands:
        if few and command[0] not in FEW:
            continue
        answers = []
        for which, store in (("folder", folder), ("cloud", s3)):
            words = [word.format(which) for word in command]
            answer = studied(*words, "--store", store)
            assert answer.code == 0, (command, answer.err)
            text = answer.out.replace(store, "STORE").replace(f"policy-{which}", "policy")
            answers.append(re.sub(r'"bytes": \d+|in \d+\.\d s|\d+\.\d s', "", text))
        assert answers[0] == answers[1], command
    if few:
        return
    said = studied("report", s3, "--out", "page", "--format", "none", "-q")
    assert said.code == 0 and Path("page", "index.html").is_file(), said.err
    assert studied("compare", "table.parquet", *STATS, "--json").code == 0


@pytest.mark.journey
@pytest.mark.long
def test_a_bundle_is_made_of_an_object_store(s3: str, studied: Cli, tmp_path: Path) -> None:
    assert studied("store", "copy", "runs", s3).code == 0
    trial = next(name for name in Store(s3).trials() if name.startswith("two-stage"))
    assert studied("calibrate", trial, *TARGET, "--store", s3).code == 0
    ok(studied("export", trial, s3, *BUNDLE))
    assert (tmp_path / "bundle" / "run.py").is_file()


def test_what_is_damaged_ends_with_1_and_is_named(studied: Cli) -> None:
    weights = next(Path("runs/nodes").glob("*/weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    answer = studied("store", "copy", "runs", "copy")
    assert answer.code == 1 and f"left out: {weights} has " in answer.err
    assert studied("store", "copy", "none", "copy").code == 2


def test_a_store_without_a_finished_trial_is_not_packed(studied: Cli) -> None:
    """A pack of nothing could not be read."""
    for trial in Path("runs/trials").iterdir():
        trial.rename(Path(trial.name))
    answer = studied("store", "pack", "--out", "out")
    assert answer.code == 2 and "runs holds no finished trial" in answer.err and not Path("out").exists()


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
