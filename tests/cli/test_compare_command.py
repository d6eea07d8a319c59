"""`offramp compare`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from command import Cli, data, narrow, refused

import records
from offramp.api.results.compare import compare
from offramp.report.compare import Trials
from refusal import refuses


def test_compare_strategies_seed_by_seed(studied: Cli) -> None:
    said = data(studied("compare", "joint", "two-stage", "--json"))
    assert said["measure"] == "accuracy-test"
    assert said["paired_by"] == "seed" and [row["exit"] for row in said["exits"]] == [1, 2, 3]
    assert {row["pairs"] for row in said["exits"]} == {2}
    other = data(studied("compare", "two-stage", "joint", "--json"))
    for row, turned in zip(said["exits"], other["exits"], strict=True):
        assert row["mean"] == -turned["mean"] and row["low"] <= row["mean"] <= row["high"]
    assert "paired by seed" in narrow(studied("compare", "joint", "two-stage"))
    # The baseline has the final exit alone.
    assert [r["exit"] for r in data(studied("compare", "baseline", "joint", "--json"))["exits"]] == [3]


def test_compare_trials_image_by_image(studied: Cli) -> None:
    pair = ("joint-digits-cnn-digits-s1", "joint-digits-cnn-digits-s2")
    said = data(studied("compare", *pair, "--json"))
    assert said["paired_by"] == "image" and {row["pairs"] for row in said["exits"]} == {100}
    one, other = (data(studied("show", trial, "--json")) for trial in pair)
    for i, row in enumerate(said["exits"]):
        a, b = (trial["metrics"]["test"]["accuracy"][i] for trial in (one, other))
        assert row["mean"] == pytest.approx(a - b)
    assert "paired by image" in narrow(studied("compare", *pair))


def test_compare_pairs_trials_of_several_studies(studied: Cli) -> None:
    """A setting that neither strategy reads, and other taps: trunk, data and seed are the same."""
    other = ("--set", "strategies=[separate]", "--set", "recipe.temperature=4")
    assert studied("run", "s.yaml", "--quiet", *other, "--set", "exits.taps=[blocks.2]").code == 0
    rows = data(studied("compare", "joint", "separate", "--json"))["exits"]
    assert [(row["exit"], row["pairs"]) for row in rows] == [(2, 2), (3, 2)]
    turned = data(studied("compare", "separate", "joint", "--json"))["exits"]
    assert [(row["exit"], row["mean"]) for row in turned] == [
        (1, -rows[0]["mean"]),
        (2, -rows[1]["mean"]),
    ]
    one, other = "joint-digits-cnn-digits-s1", "separate-digits-cnn-digits-s1"
    by_image = data(studied("compare", one, other, "--json"))["exits"]
    assert [row["exit"] for row in by_image] == [2, 3]  # and not its first exit beside the other's
    back = data(studied("compare", other, one, "--json"))["exits"]
    assert [(row["exit"], -row["mean"]) for row in back] == [
        (k, row["mean"]) for k, row in enumerate(by_image, start=1)
    ]


def test_compare_does_not_choose_between_trials(studied: Cli) -> None:
    change = ("--set", "strategies=[joint]", "--set", "recipe.epochs=1", "--set", "seeds=[1]")
    assert studied("run", "s.yaml", "--quiet", *change).code == 0
    answer = studied("compare", "two-stage", "joint")
    names = [trial.name for trial in Path("runs/trials").glob("joint-*-s1-*")]
    refused(answer, *names, "'joint' has two trials", "compare trial ids")
    assert studied("compare", "two-stage", "baseline").code == 0  # has nothing to do with it


def test_compare_with_one_seed_has_no_interval(studied: Cli) -> None:
    for trial in Path("runs/trials").glob("*-s2-*"):
        trial.rename(Path(trial.name))
    text = narrow(studied("compare", "joint", "two-stage"))
    assert "–" in text and "One seed allows no interval" in text
    assert data(studied("compare", "joint", "two-stage", "--json"))["exits"][0]["low"] is None


def test_compare_refuses_what_has_no_exit_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = {"joint": "layer1", "separate": "blocks.1"}
    manifests = {s: records.manifest(("k",), strategy=s, places=[place]) for s, place in sides.items()}
    node = SimpleNamespace(read_node=lambda _: records.node({}))
    both = Trials(Path("runs"), manifests, node, pd.DataFrame)  # type: ignore[arg-type]
    monkeypatch.setattr("offramp.report.compare.trials_in", lambda _: both)
    refuses("'joint' and 'separate' have no exit in common", compare, "joint", "separate", "runs")
