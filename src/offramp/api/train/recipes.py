"""How the paper trains, as study files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from offramp.api.answer import answer
from offramp.api.options import CommandOption
from offramp.errors import OfframpError, nearest
from offramp.paper.recipes import OTHERS, RECIPES, PaperRecipe
from offramp.recipe import Recipe
from offramp.terminal import TextBlocks, TextTable, Verbatim


def study_yaml(study: Mapping[str, Any]) -> str:
    """A study in the types of JSON as YAML."""
    import yaml

    text: str = yaml.safe_dump(dict(study), sort_keys=False, default_flow_style=None, width=90)
    return text


@answer
class StudyText:
    """A study file. text: what it says.  record: the recipe, in the types of JSON."""

    text: str
    record: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return dict(self.record)

    def document(self) -> TextBlocks:
        return [Verbatim(self.text)]


@answer
class RecipeList:
    """All recipes: of the paper, and short ones beyond it."""

    def as_json(self) -> list[dict[str, Any]]:
        return [*map(_record, RECIPES.values()), *map(_other_record, OTHERS)]

    def document(self) -> TextBlocks:
        rows: dict[str, list[tuple[str, ...]]] = {"steps": [], "start": [], "source": []}
        for name, r in RECIPES.items():
            momentum = "–" if r.momentum is None else f"{r.momentum:g}"
            numbers = f"{r.weight_decay:g}", str(r.epochs), str(r.batch_size)
            rows["steps"].append((name, r.optimizer, f"{r.learning_rate:g}", momentum, *numbers))
            augment = ", ".join(r.augment).replace("_", " ") or "none"
            patience = "–" if r.patience is None else str(r.patience)
            rows["start"].append((name, r.schedule, patience, r.weights or "scratch", augment))
            rows["source"].append((name, r.network, r.source, r.readings))
        precision = " and ".join(sorted({r.precision for r in RECIPES.values()}))
        numbers_of_steps = ["rate", "momentum", "decay", "epochs", "batch"]
        return [
            TextTable(["recipe", "optimizer"], numbers_of_steps, rows["steps"], "How the paper trains"),
            TextTable(["recipe", "schedule", "patience", "from", "augmentation"], rows=rows["start"]),
            TextTable(["recipe", "in the paper", "sections", "read as"], rows=rows["source"]),
            _short_ones(),
            f"Precision {precision}, deterministic; images normalized per channel; seeds 42 to 46.\n"
            "docs/readings.md explains 'read as'. offramp recipes NAME prints a study file;\n"
            "studies/paper/ holds all of the paper's. docs/studies.md has every option.",
        ]


def recipes(
    name: Annotated[str | None, CommandOption("NAME", complete=lambda: [*RECIPES, *OTHERS])] = None,
) -> RecipeList | StudyText:
    """Print a study file to start from, or how the paper trains.

    Without NAME it shows a table of the recipes of the paper, and of short ones beyond it.

    Args:
        name: Print this recipe, such as resnet50-cifar10, as a study file.

    Raises:
        OfframpError: There is no such recipe.

    On the command line:
        offramp recipes
        offramp recipes resnet50-cifar10 > mine.yaml
        offramp recipes airbench-cifar10
        offramp recipes demo > demo.yaml
    """
    if name is None:
        return RecipeList()
    if name in OTHERS:
        return StudyText(study_yaml(OTHERS[name]), _other_record(name))
    if name not in RECIPES:
        raise OfframpError(f"there is no recipe '{name}'{nearest(name, [*RECIPES, *OTHERS])}")
    return StudyText(snippet(RECIPES[name]), _record(RECIPES[name]))


def snippet(recipe: PaperRecipe) -> str:
    """The recipe as a study file."""
    head = f"# {recipe.network} on {recipe.data}, as the paper's sections {recipe.source} say.\n"
    return head + study_yaml(recipe.study)


def _record(recipe: PaperRecipe) -> dict[str, Any]:
    return {"name": recipe.name, **asdict(recipe), "study": recipe.study}


def _other_record(name: str) -> dict[str, Any]:
    return {"name": name, "study": OTHERS[name]}


def _short_ones() -> TextTable:
    """Recipes beyond the paper."""
    rows = []
    for name, study in OTHERS.items():
        recipe = Recipe(**study["recipe"])
        counts = recipe.epochs, recipe.batch_size, len(study["strategies"])
        average = "–" if recipe.average == "none" else recipe.average
        rate = f"{recipe.learning_rate:g}"
        rows.append((name, recipe.schedule, average, rate, *map(str, counts)))
    columns = ["rate", "epochs", "batch", "strategies"]
    return TextTable(["not the paper's", "schedule", "average"], columns, rows)
