"""Tables of a report: which there are, and how to make them.

A new one is a function from `Runs` (or from all `Evidence`) to Tables, in a file of its family or of its
own, and a line here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from offramp.report.registry import Family, FamilyFunction, chosen, made_of, publication

if TYPE_CHECKING:
    from offramp.analysis.measures import Measure
    from offramp.report.evidence import Evidence
    from offramp.report.model import Table


def _table(of: str, shows: str, *, measured: bool = False) -> Family:
    return Family(f"{__name__}.{of}", shows, measured=measured)


# In the order in which a reader finds them.
# fmt: off
TABLES: Mapping[str, Family] = MappingProxyType({
    "main": _table("main:main", "accuracy at each exit and against compute, training time"),
    "equal": _table("compute:equal", "accuracy at equal compute, with early exits in use"),
    "leaving": _table(
        "compute:leaving", "accuracy–compute in one number, regret, failure prediction by exit"),
    "overall": Family(
        f"{__name__}.compute:overall", "interquartile means over networks and data sets", whole=True,
        needs="there is one network on one data set"),
    **publication().tables,
    "pairs": _table(
        "differences:pairs", "all pairs of strategies: differences in test accuracy", measured=True),
    "tests": _table(
        "differences:tests", "loss, accuracy and costs at every exit, over seeds: the default"),
})
# fmt: on


def make(
    evidence: Evidence, only: Collection[str | FamilyFunction] = (), measure: Measure | None = None
) -> tuple[Table, ...]:
    """Tables of the evidence; none of a family of which it has nothing. only: names of families,
    `path/file.py:name`, or functions; all where there are none. measure: in place of accuracy, in tables
    that take one.

    Raises:
        OfframpError: For an unknown name, and where a user's own code fails.
    """
    from offramp.report.model import Table  # pandas, which listing does without

    families = chosen(TABLES, only, "table")
    return tuple(
        table for _, of_family in made_of(families, evidence, Table, measure) for table in of_family
    )
