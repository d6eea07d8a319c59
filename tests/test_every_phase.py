"""A literal table of every strategy at four exits: what each phase trains, its loss, teacher and start.

The table is `__snapshots__/test_every_phase.ambr`. Whoever changes a line of it changes a strategy: the
new line is checked against the strategy's source.
"""

from collections.abc import Iterable
from dataclasses import MISSING, fields, replace
from itertools import groupby
from operator import attrgetter

import pytest

from offramp.parts import Part
from offramp.phase import Phase
from offramp.strategies import STRATEGIES

EXITS = 4


def parts_in_words(parts: Iterable[Part]) -> str:
    """
    >>> parts_in_words({Part("segment", 1), Part("segment", 2), Part("head", 2)})
    'head 2 + segment 1 2'
    """
    ordered = sorted(parts, key=attrgetter("kind", "index"))
    kinds = groupby(ordered, key=attrgetter("kind"))
    return " + ".join(f"{kind} {' '.join(str(p.index) for p in group)}" for kind, group in kinds)


def line(phase: Phase) -> str:
    """Name, parts and loss, then every field that is not at its default."""
    cells = [phase.name, parts_in_words(phase.train), " ".join(map(str, phase.loss))]
    for field in fields(phase):
        value = getattr(phase, field.name)
        if field.default is not MISSING and value != field.default:
            if field.name in ("init", "backward"):
                value = {parts_in_words(parts): setting for parts, setting in value}
            cells.append(f"{field.name}={value}")
    return " | ".join(cells)


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_phase_is_that_of_the_table(name: str, snapshot) -> None:
    assert "\n".join(map(line, STRATEGIES[name](EXITS))) == snapshot


def test_a_part_that_is_left_out_changes_the_line() -> None:
    """The control: the first segment of exit-ensemble, which nothing else would miss."""
    (together,) = STRATEGIES["exit-ensemble"](EXITS)
    fewer = replace(together, train=together.train - {Part("segment", 1)}, init={})
    assert line(fewer) != line(together)
