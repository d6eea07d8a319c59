"""Families of figures and of tables: what there is, and how to make it. Listing them imports nothing.

The door for others' work: a `Publication` adds tables, claims and families of strategies to every
report; a function of a user's, `path/file.py:name`, is a figure or a table wherever one is named.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp import usercode
from offramp.analysis.families import NO_FAMILIES, StrategyFamilies
from offramp.errors import OfframpError, nearest

if TYPE_CHECKING:
    from offramp.analysis.measures import Measure
    from offramp.report.evidence import Evidence

PUBLICATIONS = ("offramp.paper",)  # modules that have a PUBLICATION
FamilyFunction = Callable[..., list[Any]]


@dataclass(frozen=True)
class Family:
    """Figures or tables that are made together."""

    # what makes them, a function or the place of one, `module:name`: a list of Figures or of Tables from
    # `Runs`, for each network and data set; where `whole`, from all `Evidence`
    of: str | FamilyFunction
    shows: str  # what, in a few words
    # a publication's figures or tables that these answer to, where they do not say so themselves; empty
    # where it has none
    paper: str = ""
    needs: str = "there is no trial"  # what is missing where nothing is made
    whole: bool = False  # see `of`
    measured: bool = False  # whether the function takes a `measure` to show

    @property
    def make(self) -> FamilyFunction:
        """The function."""
        if not isinstance(self.of, str):
            return self.of
        module, _, name = self.of.partition(":")
        function: FamilyFunction = vars(import_module(module))[name]
        return function


@dataclass(frozen=True)
class Publication:
    """What a publication adds to reports."""

    tables: Mapping[str, Family] = field(default_factory=dict)  # its own, by name
    # which of its figures a figure answers to, by the beginning of the figure's name
    answers: Mapping[str, str] = field(default_factory=dict)
    claims: Path | None = None  # the file of what it found, if any
    families: StrategyFamilies = NO_FAMILIES  # strategies that it compares with each other
    # the place of a function, `module:name`, from `Evidence` to sentences on where runs are not as the
    # publication's; empty where there is none
    departures: str = ""


@cache
def publication() -> Publication:
    """The one that reports answer to."""
    (published,) = (import_module(module).PUBLICATION for module in PUBLICATIONS)
    return published if isinstance(published, Publication) else Publication()


def chosen(
    families: Mapping[str, Family], only: Iterable[str | FamilyFunction], noun: str
) -> dict[str, Family]:
    """Families by name. only: names of some, `path/file.py:name`, or functions; all where there are
    none. noun: figure or table.

    Raises:
        OfframpError: For an unknown name, and for code that cannot be loaded.
    """
    names = list(only)
    own = {_name(n): _own(n, noun) for n in names if callable(n) or usercode.is_user_code(n)}
    for name in names:
        if not callable(name) and name not in families and name not in own:
            raise OfframpError(f"there is no {noun} '{name}'{nearest(name, families)}")
    return {n: f for n, f in families.items() if n in names or not names} | own


def listed(families: Mapping[str, Family]) -> dict[str, str]:
    """What each family shows, in a line, by its name."""
    return {n: f"{f.shows} (the paper's {f.paper})" if f.paper else f.shows for n, f in families.items()}


def made_of(
    families: Mapping[str, Family],
    evidence: Evidence,
    kind: type[Any],
    measure: Measure | None = None,
    answers: Mapping[str, str] = {},
) -> Iterator[tuple[str, list[Any]]]:
    """What the evidence gives of each family, by name. measure: to show in place of accuracy, in
    families that take one; answers: of figures, those of a publication (see `Publication`).

    Raises:
        OfframpError: Where no family takes a measure, and where a user's own code fails.
    """
    if measure is not None and not any(family.measured for family in families.values()):
        raise OfframpError(
            f"none of {', '.join(families)} takes a measure; leave {measure.name} out, or choose "
            f"another {kind.__name__.lower()}"
        )
    names: dict[str, str] = {}  # by the name of an item, which is that of a file
    for name, family in families.items():
        options = {"measure": measure} if measure is not None and family.measured else {}
        parts = [evidence] if family.whole else list(evidence.runs)
        with usercode.running(name):
            items = [item for part in parts for item in family.make(part, **options)]
            if not all(isinstance(item, kind) for item in items):
                raise TypeError(f"it must return a list of {kind.__name__}s")
        for item in items:
            if (other := names.get(item.name)) == name:
                raise OfframpError(
                    f"{name} makes {item.name} twice, and one file would replace the other; give each a "
                    f"name of its own, as runs.name('{item.name}') does by network and data set"
                )
            if other is not None:
                raise OfframpError(f"{name} and {other} both make {item.name}; give one another name")
            names[item.name] = name
        yield (
            name,
            [replace(item, paper=item.paper or _answer(answers, item.name, family)) for item in items],
        )


def _answer(answers: Mapping[str, str], name: str, family: Family) -> str:
    """The publication's figures that an item of this name answers to."""
    begin = max((b for b in answers if f"{name}-".startswith(f"{b}-")), key=len, default="")
    return answers.get(begin, family.paper)


def _name(function: str | FamilyFunction) -> str:
    return function if isinstance(function, str) else function.__qualname__


def _own(named: str | FamilyFunction, noun: str) -> Family:
    """A figure or table of the user's: a function of `runs`, or of `evidence`, as its parameter says."""
    make = named if callable(named) else usercode.load(named, f"a {noun}").function
    parameters = inspect.signature(make).parameters
    first = next(iter(parameters), "")
    if first not in ("runs", "evidence"):
        raise OfframpError(
            f"{_name(named)} makes no {noun}: its first parameter is '{first}'; call it runs, to be "
            "given each network and data set, or evidence, to be given all at once"
        )
    shows = (inspect.getdoc(make) or _name(named)).splitlines()[0].rstrip(".")
    needs = "it returned none"
    return Family(make, shows, "", needs, whole=first == "evidence", measured="measure" in parameters)
