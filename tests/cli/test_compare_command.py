"""`offramp compare`: strategies and trials of a store, and groups of any table."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from command import Cli, data, narrow, ok, refusal, refused
from syrupy.assertion import SnapshotAssertion

import records
from offramp.analysis.stats import MOST_GROUPS
from offramp.analysis.stats.pairwise import games_howell, tukey
from offramp.api.results.compare import compare
from offramp.api.results.stats import stats
from offramp.report import compare as comparing
from offramp.report.compare import Trials
from wording import refused_as

JOINT, SEPARATE = "joint-digits-cnn-digits-s1", "separate-digits-cnn-digits-s1"


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
    pair = (JOINT, f"{JOINT[:-1]}2")
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
    by_image = data(studied("compare", JOINT, SEPARATE, "--json"))["exits"]
    assert [row["exit"] for row in by_image] == [2, 3]  # and not its first exit beside the other's
    back = data(studied("compare", SEPARATE, JOINT, "--json"))["exits"]
    assert [(row["exit"], -row["mean"]) for row in back] == [
        (k, row["mean"]) for k, row in enumerate(by_image, start=1)
    ]


def test_compare_does_not_choose_between_trials(studied: Cli) -> None:
    change = ("--set", "strategies=[joint]", "--set", "recipe.epochs=1", "--set", "seeds=[1]")
    assert studied("run", "s.yaml", "--quiet", *change).code == 0
    answer = studied("compare", "two-stage", "joint")
    names = [trial.name for trial in Path("runs/trials").glob("joint-*-s1-*")]
    refused(answer, *names, "'joint' has two", "compare trial ids instead")
    assert "pack" not in answer.err
    ok(studied("store", "pack", "--out", "both"))
    refused(studied("compare", "two-stage", "joint", "both"), "or name one pack")
    assert studied("compare", "two-stage", "baseline").code == 0  # has nothing to do with it


def test_compare_with_one_seed_has_no_interval(studied: Cli) -> None:
    for trial in Path("runs/trials").glob("*-s2-*"):
        trial.rename(Path(trial.name))
    text = narrow(studied("compare", "joint", "two-stage"))
    assert "–" in text and "no interval" in text
    assert data(studied("compare", "joint", "two-stage", "--json"))["exits"][0]["low"] is None


def test_compare_refuses_what_has_no_exit_in_common(
    monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    sides = {"joint": "layer1", "separate": "blocks.1"}
    manifests = {s: records.manifest(("k",), strategy=s, places=[place]) for s, place in sides.items()}
    node = SimpleNamespace(read_node=lambda _: records.node({}))
    both = Trials(Path("runs"), manifests, node, pd.DataFrame)  # type: ignore[arg-type]
    monkeypatch.setattr(comparing, "trials_in", lambda _: both)
    with refused_as(snapshot):
        compare("joint", "separate", "runs")


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


def test_the_text_says_default_assumptions_rule_and_direction(
    cli: Cli, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    table(tmp_path)
    more = ("--where", "model=m1", "--better", "higher", "--same", "node")
    shown = ok(cli("compare", "in.csv", *OPTIONS, *more)).out
    said = ("DEFAULT: ", "BESIDE IT: ", "Assumes: ", "significantly ")
    assert [line for line in shown.splitlines() if any(word in line for word in said)] == snapshot
    assert "< 1e-12" in shown  # Tukey's p of joint against the rest


def test_more_groups_than_anybody_compares_are_refused_at_once(
    cli: Cli, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    rows = [(f"g{group}", seed, 0.5) for group in range(MOST_GROUPS + 1) for seed in range(2)]
    frame = pd.DataFrame(rows, columns=["strategy", "seed", "accuracy"])
    frame.to_csv(tmp_path / "in.csv", index=False)
    answer = cli("compare", "in.csv", *OPTIONS)
    assert refusal(answer) == snapshot
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


ONE_SEED = """\
strategy,accuracy,seed
a,0.5,1
b,nan,1
c,0.7,1
"""


def test_a_value_that_cannot_be_tested_is_no_failure(cli: Cli, snapshot: SnapshotAssertion) -> None:
    Path("one.csv").write_text(ONE_SEED)
    lines = ok(cli("compare", "one.csv", *OPTIONS)).out.splitlines()
    assert [line for line in lines if "not tested" in line or "left out" in line] == snapshot


def test_tables_that_cannot_be_read(cli: Cli) -> None:
    for name in ("a.csv", "a.parquet"):
        Path(name).touch()
        refused(cli("compare", name, *OPTIONS), "cannot be read")
