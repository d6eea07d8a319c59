"""Families of figures and of tables: what there is, and how to make it. Listing them imports nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from offramp.errors import OfframpError, nearest

if TYPE_CHECKING:
    from offramp.report.evidence import Evidence


@dataclass(frozen=True)
class Family:
    """Figures or tables that are made together.

    of: the function that makes them, `file:name` beside the registry: a list of Figures or of Tables
    from `Runs`, for each network and data set; where `whole`, from all `Evidence`.  shows: in a few
    words.  paper: its figures or tables that these answer to, where they do not say so themselves;
    empty where it has none.  needs: what is missing where nothing is made.
    """

    of: str
    shows: str
    paper: str = ""
    needs: str = "there is no trial"
    whole: bool = False


def chosen(families: Mapping[str, Family], only: Iterable[str], noun: str) -> list[str]:
    """Names of families, in their order; all if `only` is empty. noun: figure or table.

    Raises OfframpError for an unknown name.
    """
    wanted = list(only)
    for name in wanted:
        if name not in families:
            raise OfframpError(f"there is no {noun} '{name}'{nearest(name, families)}")
    return [name for name in families if name in wanted or not wanted]


def listed(families: Mapping[str, Family]) -> dict[str, str]:
    """What each family shows, in a line, by its name."""
    return {n: f"{f.shows} (the paper's {f.paper})" if f.paper else f.shows for n, f in families.items()}


def made(
    package: str, families: Mapping[str, Family], names: Iterable[str], evidence: Evidence
) -> Iterator[tuple[Family, list[Any]]]:
    """What the evidence gives of each family. package: of the functions."""
    for name in names:
        family = families[name]
        file, function = family.of.split(":")
        make = getattr(import_module(f"{package}.{file}"), function)
        found = make(evidence) if family.whole else [x for runs in evidence.runs for x in make(runs)]
        yield family, [replace(item, paper=item.paper or family.paper) for item in found]
