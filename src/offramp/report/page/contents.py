"""All that a report says: what the page, its figures and its tables are written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from offramp.report.model import Figure, Table

FILTERS = MappingProxyType({"model": "Model", "data": "Data set", "exit": "Exit"})  # key → its label


@dataclass(frozen=True)
class Fact:
    """A line of how it was run: a name and one value or several."""

    name: str
    values: Sequence[str]


@dataclass(frozen=True, eq=False)
class Contents:
    """What a report is made of.

    title: the study's name.  lead: its extent in a line.  answer: the first sentences, each whole.
    missing: what a partly finished study lacks, a sentence each.  claims: the table of claims.
    names of figures and tables are unique among each other.
    """

    title: str
    lead: str
    answer: Sequence[str]
    figures: Sequence[Figure]
    tables: Sequence[Table]
    claims: Sequence[Table] = ()
    how: Sequence[Fact] = ()
    missing: Sequence[str] = ()


def choices(items: Sequence[Figure | Table]) -> Mapping[str, Sequence[str]]:
    """What can be filtered by: the values of each key of FILTERS that has several, in order of
    appearance, exits by number."""
    found: dict[str, dict[str, None]] = {key: {} for key in FILTERS}
    for item in items:
        for key, value in item.about.items():
            if key in found:
                found[key][value] = None
    ordered = {key: list(values) for key, values in found.items() if len(values) > 1}
    if "exit" in ordered:
        ordered["exit"].sort(key=lambda exit: (0, int(exit)) if exit.isdigit() else (1, 0))
    return ordered
