"""What several tables need: names of files, strategies in few letters, notes that repeat."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from offramp.paper.families import LETTERS

SHORT: Mapping[str, str] = {
    **LETTERS,
    "joint-branch": "JB",
    "joint-two-stage": "JT",
    "pretrained-branch": "PB",
    "baseline": "N",
}
CORE_WORD = "core strategies"
FEW = 4  # places that a note names before it counts the rest


def slug(*parts: str) -> str:
    """A file's name, [a-z0-9-]+."""
    return "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts if part)


def spelled(strategies: Iterable[str]) -> str:
    """`J = joint, T = two-stage`: what letters stand for, of those that have some."""
    return ", ".join(f"{SHORT[s]} = {s}" for s in strategies if s in SHORT)


def gathered(notes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """One line for each thing that is to be said, with the places that it is true of.

    notes: place and words. Repeated ones are merged, in the order of their first appearance.
    """
    places: dict[str, list[str]] = {}
    for place, words in notes:
        found = places.setdefault(words, [])
        if place not in found:
            found.append(place)
    lines = []
    for words, found in places.items():
        where = [place for place in found if place]
        named = "; ".join(where[:FEW])
        more = f" and {len(where) - FEW} more" if len(where) > FEW else ""
        lines.append(f"{named}{more}: {words}." if where else f"{words}.")
    return tuple(lines)


def at(exit: int | None, exits: Sequence[int]) -> str:
    """`overall`, `exit 2`, `final`."""
    if exit is None:
        return "overall"
    return "final" if exits and exit == exits[-1] else f"exit {exit}"


def place(model: str, data: str) -> str:
    return f"{model}, {data}"
