"""`offramp recipes`, and the studies of the paper."""

import json
import re
from pathlib import Path

import yaml
from command import Cli, ok, refusal
from syrupy.assertion import SnapshotAssertion

import offramp
from offramp.paper.recipes import OTHERS, RECIPES

PAPER = Path(__file__).parents[2] / "studies" / "paper"


def test_a_study_of_the_paper_is_planned_without_data(cli: Cli, snapshot: SnapshotAssertion) -> None:
    path = PAPER / "mobilenetv1-cifar10.yaml"
    answer = ok(cli("run", path, "--set", "seeds=[42]", "--dry-run"))
    assert re.findall(r"^Provisional, [^;]*", answer.out, re.MULTILINE)[0] == snapshot(name="plan")
    assert "✓ " not in answer.out.split("trials of")[0]
    said = refusal(cli("run", path, "--set", "seeds=[42]"))
    assert said.replace(str(path), "STUDY") == snapshot(name="run")


def test_recipes_are_shown_at_80_columns_and_as_studies(cli: Cli) -> None:
    answer = cli("recipes")
    assert max(map(len, answer.out.splitlines())) <= 80 and "…" not in answer.out
    assert all(answer.out.count(f"\n{name} ") == 3 for name in RECIPES)
    assert [one["name"] for one in json.loads(cli("recipes", "--json").out)] == [*RECIPES, *OTHERS]
    text = cli("recipes", "resnet18-chestxray14").out
    assert yaml.safe_load(text)["recipe"]["patience"] == 10
    assert json.loads(cli("recipes", "resnet18-chestxray14", "--json").out)["patience"] == 10
    other = yaml.safe_load(cli("recipes", "airbench-cifar10").out)
    assert other == json.loads(cli("recipes", "airbench-cifar10", "--json").out)["study"]
    assert "airbench-cifar10" in answer.out
    notebook = offramp.recipes("airbench-cifar10")._repr_html_()  # type: ignore[attr-defined]
    assert notebook.count("\n") == cli("recipes", "airbench-cifar10").out.count("\n")
