"""`offramp recipes`: how the paper trains."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from offramp.cli.options import JsonOption, argument
from offramp.cli.render import emit, study_file
from offramp.errors import OfframpError, nearest
from offramp.terminal import show, table

if TYPE_CHECKING:
    from offramp.paper.recipes import PaperRecipe


def recipes(
    name: Annotated[
        str | None, argument("NAME", "Print this recipe, such as resnet50-cifar10, as a study file.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show how the paper trains each of its networks.

    Without NAME it shows a table of these recipes, and of short ones beyond the paper. With NAME it
    prints a study file.

    \b
    Examples:
      offramp recipes
      offramp recipes resnet50-cifar10 > mine.yaml
      offramp recipes airbench-cifar10
      offramp recipes demo > demo.yaml
    """
    from offramp.paper.recipes import OTHERS, RECIPES

    if name is None:
        _list(json)
    elif name in OTHERS and json:
        emit(_other(name))
    elif name in OTHERS:
        typer.echo(study_file(OTHERS[name]), nl=False)
    elif name not in RECIPES:
        raise OfframpError(f"there is no recipe '{name}'{nearest(name, [*RECIPES, *OTHERS])}")
    elif json:
        emit(_record(RECIPES[name]))
    else:
        typer.echo(snippet(RECIPES[name]), nl=False)


def snippet(recipe: PaperRecipe) -> str:
    """The recipe as a study file."""
    said = f"# {recipe.network} on {recipe.data}, as the paper's sections {recipe.source} say.\n"
    return said + study_file(recipe.study)


def _record(recipe: PaperRecipe) -> dict[str, object]:
    return {"name": recipe.name, **asdict(recipe), "study": recipe.study}


def _other(name: str) -> dict[str, object]:
    from offramp.paper.recipes import OTHERS

    return {"name": name, "study": OTHERS[name]}


def _list(as_json: bool) -> None:
    from offramp.paper.recipes import OTHERS, RECIPES
    from offramp.recipe import Recipe

    if as_json:
        emit([*map(_record, RECIPES.values()), *map(_other, OTHERS)])
        return
    steps = table(["recipe", "optimizer"], ["rate", "momentum", "decay", "epochs", "batch"])
    start = table(["recipe", "schedule", "patience", "from", "augmentation"])
    source = table(["recipe", "in the paper", "sections", "read as"])
    for name, r in RECIPES.items():
        momentum = "–" if r.momentum is None else f"{r.momentum:g}"
        numbers = (f"{r.weight_decay:g}", str(r.epochs), str(r.batch_size))
        steps.add_row(name, r.optimizer, f"{r.learning_rate:g}", momentum, *numbers)
        words = ", ".join(r.augment).replace("_", " ") or "none"
        patience = "–" if r.patience is None else str(r.patience)
        start.add_row(name, r.schedule, patience, r.weights or "scratch", words)
        source.add_row(name, r.network, r.source, r.readings)
    columns = ["rate", "epochs", "batch", "strategies"]
    short = table(["not the paper's", "schedule", "average"], columns)
    for name, study in OTHERS.items():
        of = Recipe(**study["recipe"])
        counts = (of.epochs, of.batch_size, len(study["strategies"]))
        average = "–" if of.average == "none" else of.average
        short.add_row(name, of.schedule, average, f"{of.learning_rate:g}", *map(str, counts))
    precision = " and ".join(sorted({r.precision for r in RECIPES.values()}))
    note = (
        f"Precision {precision}, deterministic; images normalized per channel; seeds 42 to 46.\n"
        "docs/readings.md explains 'read as'. offramp recipes NAME prints a study file;\n"
        "studies/paper/ holds all of the paper's. docs/studies.md has every option."
    )
    show([steps, start, source, short], "How the paper trains", note)
