"""Tables of a report: which there are, and how to make them.

A new one is a function from `Runs` (or from all `Evidence`) to Tables, in a file of its family or of its
own, and a line here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from offramp.report.registry import Family, chosen, made

if TYPE_CHECKING:
    from offramp.report.evidence import Evidence
    from offramp.report.model import Table

# In the order in which a reader finds them.
# fmt: off
TABLES: Mapping[str, Family] = MappingProxyType({
    "main": Family("main:main", "accuracy at each exit and against compute, training time"),
    "equal": Family("equal:equal", "accuracy at equal compute, with early exits in use"),
    "leaving": Family(
        "leaving:leaving", "accuracy–compute in one number, regret, failure prediction by exit"),
    "overall": Family(
        "overall:overall", "interquartile means over networks and data sets", whole=True,
        needs="there is one network on one data set"),
    "exits": Family("exits:exits", "accuracy by exit, loss trend, time, power", "Table 7"),
    "anova": Family(
        "anova:anova", "F tests of the core strategies: loss and accuracy", "Table 2", whole=True),
    "order-accuracy": Family(
        "orders:order_accuracy", "who is more accurate than whom, in one line each", "Fig. 11",
        whole=True),
    "order-loss": Family(
        "orders:order_loss", "whose loss is higher than whose, in one line each", "Fig. 11", whole=True),
    "epochs": Family("epochs:epochs", "epoch metrics of every strategy and exit", "Table 3"),
    "epochs-digest": Family(
        "epochs:digest", "epoch metrics in short: by depth, the best, the worst", "Table 3", whole=True),
    "anova-costs": Family(
        "anova:anova_costs", "F tests of the core strategies: time, memory, power, energy", "Table 4",
        whole=True),
    "order-costs": Family(
        "orders:order_costs", "who costs more than whom, in one line each", "Table 5", whole=True),
    "baseline": Family("exits:baseline", "networks without early exits", "Table 6", whole=True),
    "anova-hybrids": Family(
        "anova:anova_hybrids", "F tests of each hybrid against its parents", "section 6.3", whole=True),
    "decision": Family(
        "decision:decision", "strategies by characteristic, the paper's words beside ours", "Table 8",
        whole=True),
    "guidelines": Family(
        "guidelines:guidelines", "the paper's advice, each piece tied to claims", "Table 9, section 8.1",
        whole=True),
    "pairs": Family("pairs:pairs", "all pairs of strategies: differences in test accuracy"),
    "pairs-one-way": Family(
        "pairs:pairs_one_way", "all pairs of core strategies the paper's way: Tukey's HSD, Games–Howell",
        "Fig. 11"),
    "tests": Family("anova:tests", "loss, accuracy and costs at every exit, over seeds: the default"),
    "tests-one-way": Family(
        "anova:tests_one_way", "loss, accuracy and costs at every exit, one-way, and what that assumes"),
})
# fmt: on


def make(evidence: Evidence, only: Collection[str] = ()) -> tuple[Table, ...]:
    """All tables, or those of some families (names of TABLES). A family of which the evidence has
    nothing gives none. Raises OfframpError for an unknown name."""
    names = chosen(TABLES, only, "table")
    return tuple(table for _, found in made(__name__, TABLES, names, evidence) for table in found)
