"""Commands that explain: strategies and places for exits."""

from __future__ import annotations

import inspect
import json as jsonlib
import re
from typing import Any, get_args

import typer

from offramp.cli.render import console, macs, table
from offramp.errors import OfframpError
from offramp.parts import path
from offramp.phase import Phase, check, describe


def strategies(name: str | None, exits: int, as_json: bool) -> None:
    from offramp.strategies import STRATEGIES
    from offramp.study import programs

    if name is None:
        if as_json:
            typer.echo(jsonlib.dumps(list(STRATEGIES), indent=2))
            return
        listing = table()
        listing.add_column("strategy", no_wrap=True)
        listing.add_column("what it does")
        for key, strategy in STRATEGIES.items():
            listing.add_row(key, _summary(inspect.getdoc(strategy) or ""))
        console().print(listing)
        typer.echo("offramp strategies NAME shows the phases, options and source of one.")
        return
    strategy = programs.find(name)
    program = programs.program(name, exits, {}, {})
    check(program, exits)
    if as_json:
        typer.echo(jsonlib.dumps([_phase(phase) for phase in program], indent=2))
        return
    typer.echo(inspect.getdoc(strategy) or name)
    typer.echo(f"\nPhases, with {exits} exits (the last one is the final exit):")
    listing = table()
    for title in ("phase", "trains", "frozen", "loss"):
        listing.add_column(title)
    for phase in program:
        row = _phase(phase)
        trunk = "" if phase.trunk == 0 else f" (own trunk {phase.trunk})"
        notes = [f"{part} {init}" for part, init in row["init"].items()]
        notes += [f"{field} {value:g}" for field, value in row["recipe"].items()]
        listing.add_row(
            row["name"] + trunk,
            _spans(row["trains"]),
            _spans(row["frozen"]) or "–",
            "\n".join([row["loss"], *notes]),
        )
    console().print(listing)
    found = programs.options(strategy)
    if found:
        typer.echo("Options:")
    for option in found:
        typer.echo(f"  {option.name} = {option.default}   {_choices(option.annotation)}".rstrip())
    typer.echo(f"\nSource: {inspect.getsourcefile(inspect.unwrap(strategy))}")


def _summary(doc: str) -> str:
    return " ".join(doc.partition("\n\n")[0].split())


def _choices(annotation: Any) -> str:
    literals = [str(a) for a in get_args(annotation) if isinstance(a, str)]
    nested = [str(b) for a in get_args(annotation) for b in get_args(a) if isinstance(b, str)]
    words = literals or nested
    return f"({', '.join(words)})" if words else ""


def _phase(phase: Phase) -> dict[str, Any]:
    read = sorted({part for k in phase.exits for part in path(k)})
    return {
        "name": phase.name,
        "trains": [str(part) for part in sorted(phase.trained)],
        "frozen": [str(part) for part in read if part not in phase.trained],
        "loss": describe(phase.terms),
        "teacher": phase.teacher,
        "init": {str(p): init.value for parts, init in phase.init for p in sorted(parts)},
        "recipe": dict(phase.recipe),
        "trunk": phase.trunk,
    }


def _spans(parts: list[str]) -> str:
    """`segments 1–4, head 4` for a list of part names."""
    words = []
    for kind in ("segment", "head"):
        numbers = sorted(int(p.split()[1]) for p in parts if p.startswith(kind))
        if not numbers:
            continue
        runs: list[list[int]] = []
        for number in numbers:
            if runs and number == runs[-1][-1] + 1:
                runs[-1].append(number)
            else:
                runs.append([number])
        text = ", ".join(f"{r[0]}–{r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs)
        words.append(f"{kind}{'s' if len(numbers) > 1 else ''} {text}")
    return ", ".join(words)


def taps(model: str, input_: str, classes: int, stem: str | None, as_json: bool) -> None:
    from offramp.nets import NetSpec, list_places

    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)", input_)
    if found is None:
        raise OfframpError(f"--input is '{input_}'; write channels x height x width, as 3x32x32")
    shape = (int(found[1]), int(found[2]), int(found[3]))
    spec = NetSpec(model, options=() if stem is None else (("stem", stem),))
    places, chosen = list_places(spec, shape, classes)
    if as_json:
        rows = [
            {
                "name": p.name,
                "shape": list(p.shape),
                "macs": p.macs,
                "share": p.share,
                "default": p.name in chosen,
            }
            for p in places
        ]
        typer.echo(jsonlib.dumps(rows, indent=2))
        return
    listing = table(f"{model}, input {input_}: places for exits (* default taps)")
    for title in ("", "place", "shape", "MACs", "share"):
        listing.add_column(title, justify="right" if title in ("MACs", "share") else "left")
    for place in places:
        size = "x".join(str(n) for n in place.shape)
        mark = "*" if place.name in chosen else ""
        listing.add_row(mark, place.name, size, macs(place.macs), f"{100 * place.share:.1f} %")
    console().print(listing)
