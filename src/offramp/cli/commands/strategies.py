"""`offramp strategies`: the ways to train exits."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from offramp.cli import completing
from offramp.cli.options import JsonOption, argument, option
from offramp.cli.render import emit
from offramp.errors import OfframpError
from offramp.files import replacing, writing
from offramp.parts import HIDDEN, Carry, path
from offramp.phase import Phase, Program, check, describe, overridden
from offramp.terminal import console, show, table
from offramp.units import ranges

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
    from offramp.study.plan import programs

    strategy = programs.find(name)
    program = programs.program(name, exits, {}, {})
    check(program, exits)
    doc = inspect.getdoc(strategy) or name
    options = programs.options(strategy)
    source = inspect.getsourcefile(inspect.unwrap(strategy))
    if as_json:
        answer = {"name": name, "summary": _summary(doc), "exits": exits}
        phases = [_phase(phase) for phase in program]
        choices = [
            {"name": o.name, "default": o.default, "choices": _choices(o.annotation)} for o in options
        ]
        emit({**answer, "phases": phases, "options": choices, "source": source})
        return
    typer.echo(f"{_folded(doc, console().width)}\n")
    show(_phases(program), f"Phases with {exits} exits (the last one is the final exit)")
    if options:
        typer.echo("Options (name = default):")
    for o in options:
        words = ", ".join(_choices(o.annotation))
        typer.echo(f"  {o.name} = {o.default}" + (f"   ({words})" if words else ""))
    typer.echo(("\n" if options else "") + f"Source: {source}")


def _phases(program: Program) -> Any:
    rows = []
    for phase in program:
        row = _phase(phase)
        trunk = "" if phase.trunk == 0 else f" (own trunk {phase.trunk})"
        notes = [f"{part} {init}" for part, init in row["init"].items()]
        notes += [f"{field} {word}" for field, word in overridden(phase)]
        notes += [
            f"{part} sends back {factor:.3g} of its gradient" for part, factor in row["backward"].items()
        ]
        notes += [_carrying(phase.carry)] if phase.carry else []
        notes += [f"images weighed by {row['sample_weights']}"] if row["sample_weights"] else []
        trained, frozen = _spans(row["trains"]), _spans(row["frozen"]) or "–"
        rows.append((row["name"] + trunk, trained, frozen, "\n".join([row["loss"], *notes])))
    return table(["phase", "trains", "frozen", "loss"], rows=rows)


def _carrying(carry: Carry) -> str:
    if isinstance(carry, str):
        layer = " through a hidden layer" if carry == HIDDEN else ""
        return f"each early exit adds a learned matrix times the answer before{layer}"
    return f"each exit adds {carry:g} of the answer before"


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
    read = sorted({part for k in phase.exits for part in path(k)})
    return {
        "name": phase.name,
        "trains": [str(part) for part in sorted(phase.trained)],
        "frozen": [str(part) for part in read if part not in phase.trained],
        "loss": describe(phase.terms),
        "teacher": phase.teacher,
        "init": {str(part): init.value for part, init in sorted(phase.starts.items())},
        "recipe": dict(phase.recipe),
        "trunk": phase.trunk,
        "backward": {str(part): factor for part, factor in phase.scales.items()},
        "carry": phase.carry,
        "sample_weights": None if phase.sample_weights is None else str(phase.sample_weights),
    }


def _spans(parts: list[str]) -> str:
    """`segments 1–4, head 4` for a list of part names."""
    words = []
    for kind in ("segment", "head"):
        numbers = [int(part.split()[1]) for part in parts if part.startswith(kind)]
        if numbers:
            words.append(f"{kind}{'s' if len(numbers) > 1 else ''} {ranges(numbers)}")
    return ", ".join(words)
