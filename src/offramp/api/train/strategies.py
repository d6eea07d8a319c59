"""The ways to train exits."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args

from offramp.api.answer import answer
from offramp.api.options import CommandOption, strategy_names
from offramp.errors import OfframpError
from offramp.files import write_whole
from offramp.parts import Parts, path
from offramp.phase import STRUCTURE, Phase, Program, check, describe, listed, notes
from offramp.strategies import GROUPS, STRATEGIES, explained
from offramp.terminal import TextBlocks, TextTable

EXITS = 4  # of the example by which costs are told


@answer
class StrategyList:
    """All strategies. rows: name, group, summary and cost of each, in the types of JSON."""

    rows: Sequence[Mapping[str, Any]]

    def as_json(self) -> list[Mapping[str, Any]]:
        return list(self.rows)

    def document(self) -> TextBlocks:
        tables = []
        for group in dict.fromkeys(row["group"] for row in self.rows):
            rows = [
                (row["name"], row["summary"], f"{row['cost']:.1f}")
                for row in self.rows
                if row["group"] == group
            ]
            columns = ["strategy", "what it does"]
            tables.append(TextTable(columns, ["work to\ntrain"], rows, group))
        return [
            *tables,
            f"work to train: joint = 1; for {EXITS} evenly spaced exits, equal epochs in every\n"
            "phase, and frozen layers run once.\n"
            "offramp strategies NAME shows the phases, options and source of one.",
        ]


@answer
class StrategyExplanation:
    """One strategy.

    Attributes:
        name: As a study names it.
        exits: Of the example, the final one included.
        program: Its phases.
        source: The file of its function.
    """

    name: str
    exits: int
    program: Program
    source: str | None
    _doc: str
    _options: Sequence[inspect.Parameter]
    _about: Mapping[str, str]  # options, in words

    def as_json(self) -> dict[str, Any]:
        options = [
            {"name": o.name, "default": o.default, "choices": _choices(o.annotation)}
            for o in self._options
        ]
        return {
            "name": self.name,
            "summary": _summary(self._doc or self.name),
            "exits": self.exits,
            "phases": [_phase(phase) for phase in self.program],
            "options": options,
            "source": self.source,
        }

    def document(self) -> TextBlocks:
        rows = []
        for phase in self.program:
            words = "\n".join([describe(phase.terms), *notes(phase)])
            frozen = listed(_frozen(phase)) or "–"
            rows.append((phase.name, listed(phase.trained), frozen, words))
        title = f"Phases with {self.exits} exits (the last one is the final exit)"
        options = ["Options (name = default):"] if self._options else []
        for o in self._options:
            choices = ", ".join(_choices(o.annotation))
            options.append(f"  {o.name} = {o.default}" + (f"   ({choices})" if choices else ""))
            if o.name in self._about:
                options.append(f"      {self._about[o.name]}")
        return [
            _unfolded(self._doc or self.name),
            TextTable(["phase", "trains", "frozen", "loss"], rows=rows, title=title),
            *options,
            f"{chr(10) if options else ''}Source: {self.source}",
        ]


@answer
class StrategyPicture:
    """A picture of a strategy. file: where it was drawn."""

    file: Path

    def as_json(self) -> dict[str, str]:
        return {"file": str(self.file)}

    def warnings(self) -> Sequence[str]:
        return [f"drawn: {self.file}"]

    def document(self) -> TextBlocks:
        return []


def list_strategies(
    name: Annotated[str | None, CommandOption("NAME", complete=strategy_names)] = None,
    *,
    exits: Annotated[int, CommandOption("N", least=1, most=1000)] = EXITS,
    picture: Annotated[Path | None, CommandOption("FILE.svg")] = None,
) -> StrategyList | StrategyExplanation | StrategyPicture:
    """List the strategies, or explain one.

    With NAME: its phases, what trains and what is frozen in each, options and source.

    Args:
        name: A strategy, or my_file.py:my_strategy.
        exits: Number of exits, the final one included.
        picture: With NAME: draw what trains in which phase, to this file.

    Raises:
        OfframpError: There is no such strategy.

    On the command line:
        offramp strategies joint-branch --exits 3
        offramp strategies joint-branch --picture joint-branch.svg
    """
    if picture is not None:
        return _draw(name, exits, picture)
    return _listed() if name is None else _explain(name, exits)


def _draw(name: str | None, exits: int, file: Path) -> StrategyPicture:
    from offramp.report.render.program import picture
    from offramp.study.plan import programs

    if name is None:
        raise OfframpError("`picture` draws one strategy; name it, such as joint-branch")
    drawing = picture(programs.program(name, exits, {}, {}), exits, f"{name}, with {exits} exits")
    write_whole(file, drawing)
    return StrategyPicture(file)


def _listed() -> StrategyList:
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
    return StrategyList(rows)


def _work(program: Sequence[Phase]) -> int:
    """Segments that run and are trained through, over all phases; heads count for nothing."""
    return sum(len(_live(phase)) for phase in program)


def _live(phase: Phase) -> set[int]:
    """The segments of a phase from the first that it trains to the exits that it reads."""
    trained = sorted(part.index for part in phase.trained if part.kind == "segment")
    return {i for k in phase.exits for first in trained[:1] for i in range(first, k + 1)}


def _explain(name: str, exits: int) -> StrategyExplanation:
    from offramp.study.plan import programs

    strategy = programs.find(name)
    program = programs.program(name, exits, {}, {})
    check(program, exits)
    doc, about = explained(strategy)
    source = inspect.getsourcefile(inspect.unwrap(strategy))
    options = programs.options(strategy)
    return StrategyExplanation(name, exits, program, source, doc, options, about)


def _summary(doc: str) -> str:
    return " ".join(doc.partition("\n\n")[0].split())


def _unfolded(doc: str) -> str:
    """A docstring, each paragraph of prose in one line; steps stay lines of their own."""
    blocks = []
    for block in doc.split("\n\n"):
        steps = re.search(r"^( |\d+\.)", block, re.MULTILINE)
        blocks.append(block if steps else " ".join(block.split()))
    return "\n\n".join(blocks)


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
