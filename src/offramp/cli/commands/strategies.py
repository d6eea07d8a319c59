"""`offramp strategies`: the ways to train exits."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from offramp.cli import completing
from offramp.cli.options import JsonOption, argument, option
from offramp.cli.render import emit
from offramp.errors import OfframpError
from offramp.files import replacing, writing
from offramp.parts import Parts, path
from offramp.phase import STRUCTURE, Phase, Program, check, describe, listed, notes
from offramp.terminal import console, show, table

EXITS = 4  # of the example by which costs are told


def strategies(
    name: Annotated[
        str | None,
        argument("NAME", "A strategy, or my_file.py:my_strategy.", autocompletion=completing.strategies),
    ] = None,
    exits: Annotated[int, option("N", "Number of exits, the final one included.", min=1, max=1000)] = 4,
    picture: Annotated[
        Path | None, option("FILE.svg", "With NAME: draw what trains in which phase, to this file.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the strategies, or explain one.

    With NAME: its phases, what trains and what is frozen in each, options and source.

    \b
    Examples:
      offramp strategies joint-branch --exits 3
      offramp strategies joint-branch --picture joint-branch.svg
    """
    if picture is not None:
        _draw(name, exits, picture)
    elif name is None:
        _list(json)
    else:
        _explain(name, exits, json)


def _draw(name: str | None, exits: int, file: Path) -> None:
    from offramp.report.render.program import picture
    from offramp.study.plan import programs

    if name is None:
        raise OfframpError("--picture draws one strategy; name it, such as joint-branch")
    drawn = picture(programs.program(name, exits, {}, {}), exits, f"{name}, with {exits} exits")
    with writing(file), replacing(file) as temporary:
        temporary.write_text(drawn, encoding="utf-8")
    typer.echo(f"drawn: {file}", err=True)


def _list(as_json: bool) -> None:
    from offramp.strategies import GROUPS, STRATEGIES

    joint = _work(STRATEGIES["joint"](EXITS))
    rows = [
        {
            "name": name,
            "group": group,
            "summary": _summary(inspect.getdoc(strategy) or ""),
            "cost": round(_work(strategy(EXITS)) / joint, 2),
        }
        for group, members in GROUPS.items()
        for name, strategy in members.items()
    ]
    if as_json:
        emit(rows)
        return
    for group in GROUPS:
        mine = [row for row in rows if row["group"] == group]
        shown = [(str(r["name"]), str(r["summary"]), f"{r['cost']:.1f}") for r in mine]
        show(table(["strategy", "what it does"], ["work to\ntrain"], shown), group)
    typer.echo(
        f"work to train: joint = 1; for {EXITS} evenly spaced exits, equal epochs in every\n"
        "phase, and frozen layers run once.\n"
        "offramp strategies NAME shows the phases, options and source of one."
    )


def _work(program: Sequence[Phase]) -> int:
    """Segments that run and are trained through, over all phases; heads count for nothing."""
    return sum(len(_live(phase)) for phase in program)


def _live(phase: Phase) -> set[int]:
    """The segments of a phase from the first that it trains to the exits that it reads."""
    trained = sorted(part.index for part in phase.trained if part.kind == "segment")
    return {i for k in phase.exits for first in trained[:1] for i in range(first, k + 1)}


def _explain(name: str, exits: int, as_json: bool) -> None:
    from offramp.strategies import explained
    from offramp.study.plan import programs

    strategy = programs.find(name)
    program = programs.program(name, exits, {}, {})
    check(program, exits)
    doc, words = explained(strategy)
    options = programs.options(strategy)
    source = inspect.getsourcefile(inspect.unwrap(strategy))
    if as_json:
        answer = {"name": name, "summary": _summary(doc or name), "exits": exits}
        phases = [_phase(phase) for phase in program]
        parameters = [
            {"name": o.name, "default": o.default, "choices": _choices(o.annotation)} for o in options
        ]
        emit({**answer, "phases": phases, "options": parameters, "source": source})
        return
    width = console().width
    typer.echo(f"{_folded(doc or name, width)}\n")
    show(_phases(program), f"Phases with {exits} exits (the last one is the final exit)")
    if options:
        typer.echo("Options (name = default):")
    for o in options:
        choices = ", ".join(_choices(o.annotation))
        typer.echo(f"  {o.name} = {o.default}" + (f"   ({choices})" if choices else ""))
        if o.name in words:
            typer.echo(textwrap.indent(textwrap.fill(words[o.name], width - 6), " " * 6))
    typer.echo(("\n" if options else "") + f"Source: {source}")


def _phases(program: Program) -> Any:
    rows = []
    for phase in program:
        words = "\n".join([describe(phase.terms), *notes(phase)])
        rows.append((phase.name, listed(phase.trained), listed(_frozen(phase)) or "–", words))
    return table(["phase", "trains", "frozen", "loss"], rows=rows)


def _summary(doc: str) -> str:
    return " ".join(doc.partition("\n\n")[0].split())


def _folded(doc: str, width: int) -> str:
    """A docstring on a narrower page: prose is filled anew, steps keep their lines."""
    blocks = []
    for block in doc.split("\n\n"):
        steps = re.search(r"^( |\d+\.)", block, re.MULTILINE)
        for line in block.splitlines() if steps else [" ".join(block.split())]:
            indent = re.match(r" *(\d+\. )?", line)
            hang = " " * (indent.end() if indent else 0)
            blocks.append(textwrap.fill(line, width, subsequent_indent=hang, tabsize=4))
        blocks.append("")
    return "\n".join(blocks).rstrip()


def _choices(annotation: Any) -> list[str]:
    """The words that an option may be."""
    literals = [a for a in get_args(annotation) if isinstance(a, str)]
    return literals or [b for a in get_args(annotation) for b in get_args(a) if isinstance(b, str)]


def _phase(phase: Phase) -> dict[str, Any]:
    settings = {f.name: phase.settings.get(f.name, f.default) for f in fields(phase)}
    return {
        "name": phase.name,
        "trains": [str(part) for part in sorted(phase.trained)],
        "frozen": [str(part) for part in sorted(_frozen(phase))],
        "loss": describe(phase.terms),
        "teacher": phase.teacher,
        "init": {str(part): init.value for part, init in sorted(phase.starts.items())},
        "recipe": dict(phase.recipe),
        "trunk": phase.trunk,
        **{name: _in_json(value) for name, value in settings.items() if name not in STRUCTURE},
    }


def _frozen(phase: Phase) -> Parts:
    """What its loss reads and it does not train."""
    return frozenset(part for k in phase.exits for part in path(k)) - phase.trained


def _in_json(setting: Any) -> Any:
    """Factors by part; what is no number, in words."""
    if isinstance(setting, tuple | dict):
        return {str(part): factor for part, factor in dict(setting).items()}
    return setting if isinstance(setting, float | int | str | None) else str(setting)
