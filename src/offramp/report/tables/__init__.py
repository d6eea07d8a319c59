"""Every table of a report: a function a family, from findings to tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from offramp.errors import OfframpError, nearest
from offramp.report.evidence import Evidence
from offramp.report.findings import Findings
from offramp.report.model import Table
from offramp.report.tables.anova import anova, anova_costs, anova_hybrids, tests, tests_one_way
from offramp.report.tables.decision import decision
from offramp.report.tables.epochs import digest, epochs
from offramp.report.tables.exits import baseline, exits
from offramp.report.tables.guidelines import guidelines
from offramp.report.tables.main import main
from offramp.report.tables.orders import order_accuracy, order_costs, order_loss
from offramp.report.tables.pairs import pairs, pairs_one_way

# In the order in which a reader finds them.
TABLES: Mapping[str, Callable[[Findings], list[Table]]] = MappingProxyType(
    {
        "main": main,
        "exits": exits,
        "anova": anova,
        "order-accuracy": order_accuracy,
        "order-loss": order_loss,
        "epochs": epochs,
        "epochs-digest": digest,
        "anova-costs": anova_costs,
        "order-costs": order_costs,
        "baseline": baseline,
        "anova-hybrids": anova_hybrids,
        "decision": decision,
        "guidelines": guidelines,
        "pairs": pairs,
        "pairs-one-way": pairs_one_way,
        "tests": tests,
        "tests-one-way": tests_one_way,
    }
)


def about(name: str) -> str:
    """What a family of tables is, in a line."""
    return (TABLES[name].__doc__ or "").strip().splitlines()[0]


def make(evidence: Evidence, only: Collection[str] = ()) -> tuple[Table, ...]:
    """All tables, or those of some families (names of TABLES). A family of which the evidence has
    nothing gives none. Raises OfframpError for an unknown name."""
    for name in only:
        if name not in TABLES:
            raise OfframpError(f"there is no table '{name}'{nearest(name, TABLES)}")
    found = Findings(evidence)
    return _named(
        [table for name, build in TABLES.items() if not only or name in only for table in build(found)]
    )


def _named(tables: Sequence[Table]) -> tuple[Table, ...]:
    """Names made different where two models' names differ only in signs that no file's name has."""
    seen: dict[str, int] = {}
    made = []
    for table in tables:
        seen[table.name] = seen.get(table.name, 0) + 1
        count = seen[table.name]
        made.append(table if count == 1 else replace(table, name=f"{table.name}-{count}"))
    return tuple(made)
