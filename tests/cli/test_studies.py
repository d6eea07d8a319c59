"""`offramp run` on lists and within a budget, and `offramp recipes`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from command import STUDY, Cli

from offramp.paper.recipes import RECIPES

SHORT = STUDY.replace("epochs: 2", "epochs: 1").replace("seeds: [1, 2]", "seeds: [1]")
PAPER = Path(__file__).parents[2] / "studies" / "paper"


@pytest.fixture
def two(cli: Cli, tmp_path: Path) -> Cli:
    """A list of two studies, of which the second needs one node more than the first."""
    (tmp_path / "a.yaml").write_text(SHORT.replace("[baseline, joint, two-stage]", "[baseline]"))
    (tmp_path / "b.yaml").write_text(SHORT.replace("[baseline, joint, two-stage]", "[baseline, joint]"))
    (tmp_path / "all.yaml").write_text("studies: [a.yaml, b.yaml]\n")
    return cli


def test_a_list_is_forecast_as_a_whole(two: Cli) -> None:
    said = json.loads(two("run", "all.yaml", "--dry-run", "--speed", "2GFLOPS", "--json").out)
    totals, (a, b) = said["totals"], (one["totals"] for one in said["studies"])
    assert (totals["nodes"], totals["trials"]) == (2, 3)  # the baseline counts once
    assert totals["macs_written"] == a["macs_written"] + b["macs_written"]
    assert totals["macs"] == b["macs"] and totals["macs_to_run"] == totals["macs"]
    assert totals["seconds_at_given"] == pytest.approx(totals["macs_to_run"] / 1e9)
    assert 0 < totals["share_of_written"] < 1
    assert [one["workers"]["count"] for one in said["studies"]] == [1, 1]
    answer = two("run", "all.yaml", "--dry-run", "--speed", "2GFLOPS")
    assert "all.yaml: 2 studies" in answer.out and "at a steady 1 GMAC/s" in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80 and not Path("runs").exists()


def test_a_list_runs_into_one_store(two: Cli) -> None:
    answer = two("run", "all.yaml")
    assert answer.code == 0, answer.err
    assert "all.yaml" not in answer.err and "b.yaml, study 2 of 2" in answer.err
    assert "1 of 1 trial in runs: 1 node trained" in answer.out
    assert "1 node trained, 1 reused" in answer.out
    said = json.loads(two("run", "all.yaml", "--json").out)
    assert [len(one["trials"]) for one in said["studies"]] == [1, 2]


def test_what_fails_in_one_study_leaves_the_next(two: Cli, tmp_path: Path) -> None:
    broken = SHORT.replace("[baseline, joint, two-stage]", "[joint]").replace("0.01", "1e30")
    (tmp_path / "a.yaml").write_text(broken)
    answer = two("run", "all.yaml")
    assert answer.code == 1 and "failed in part: a.yaml" in answer.err
    assert "2 of 2 trials in runs" in answer.out


def test_data_that_is_not_here_is_said_before_anything_trains(two: Cli, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(SHORT.replace("{name: digits, ", "{name: cifar10, root: x, "))
    answer = two("run", "all.yaml")
    assert answer.code == 2 and "b.yaml:5" in answer.err and "fetch" in answer.err
    assert not Path("runs").exists()


def test_a_budget_is_told_and_gives_an_ordinary_study(two: Cli) -> None:
    answer = two("run", "b.yaml", "--budget", "900h", "--dry-run")
    assert answer.code == 0 and "--budget 900h: all of it fits" in answer.err
    long = ("--set", "recipe.epochs=200000")
    answer = two("run", "b.yaml", *long, "--budget", "90s", "--dry-run", "--json")
    assert "--budget 90s: the same as --set recipe.epochs=" in answer.err
    chosen = [word for word in answer.err.rstrip(".").split() if word[:6] in ("recipe", "data.t")]
    flags = [part for setting in chosen for part in ("--set", setting.rstrip(";"))]
    plain = two("run", "b.yaml", *flags, "--dry-run", "--json")
    mine, theirs = (json.loads(one.out)["nodes"] for one in (answer, plain))
    assert [n["key"] for n in mine] == [n["key"] for n in theirs]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["all.yaml", "--budget", "2h"], "--budget is for one study"),
        (["b.yaml", "--workers", "0"], "--workers must be auto or a number from 1 on; got '0'"),
        (["b.yaml", "--workers", "many"], "--workers must be auto or a number"),
        (["b.yaml", "--budget", "soon"], "--budget must be a time, such as 5ms"),
        (["b.yaml", "--speed", "14TFLOPS"], "--speed is for a forecast; add --dry-run"),
        (["b.yaml", "--speed", "fast", "--dry-run"], "--speed must be a device's speed"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(two: Cli, words: list[str], said: str) -> None:
    answer = two("run", *words)
    assert answer.code == 2 and said in answer.err and answer.err.count("\n") == 1


def test_a_study_of_the_paper_is_planned_without_data(cli: Cli) -> None:
    path = PAPER / "mobilenetv1-cifar10.yaml"
    answer = cli("run", path, "--set", "seeds=[42]", "--dry-run")
    assert answer.code == 0 and "Provisional, keys too: cifar10: no folder is given" in answer.out
    assert "✓ " not in answer.out.split("trials of")[0]
    refused = cli("run", path, "--set", "seeds=[42]")
    assert refused.code == 2 and "needs its folder; fetch" in refused.err


def test_recipes_are_shown_at_80_columns_and_as_studies(cli: Cli) -> None:
    answer = cli("recipes")
    assert max(map(len, answer.out.splitlines())) <= 80 and "…" not in answer.out
    assert all(answer.out.count(f"\n{name} ") == 3 for name in RECIPES)
    assert [one["name"] for one in json.loads(cli("recipes", "--json").out)] == list(RECIPES)
    text = cli("recipes", "resnet18-chestxray14").out
    assert yaml.safe_load(text)["recipe"]["patience"] == 10
    assert json.loads(cli("recipes", "resnet18-chestxray14", "--json").out)["patience"] == 10
    wrong = cli("recipes", "resnet18-cifar10")
    assert wrong.code == 2 and "did you mean" in wrong.err
