"""What is the paper's alone: tables, claims, guidelines, families of strategies, recipes, and where runs
depart from these. It uses the doors that a user's own file has; nothing else names it."""

from __future__ import annotations

from pathlib import Path

from offramp.paper.families import FAMILIES
from offramp.report.registry import Family, Publication


def _table(of: str, shows: str, paper: str = "", whole: bool = False) -> Family:
    return Family(f"{__name__}.tables.{of}", shows, paper, whole=whole)


# In the order in which a reader finds them.
# fmt: off
TABLES = {
    "exits": _table("exits:exits", "accuracy by exit, loss trend, time, power", "Table 7"),
    "anova": _table("anova:anova", "F tests of the core strategies: loss and accuracy",
        "Table 2", whole=True),
    "order-accuracy": _table("orders:order_accuracy", "who is more accurate than whom, in one line each",
        "Fig. 11", whole=True),
    "order-loss": _table("orders:order_loss", "whose loss is higher than whose, in one line each",
        "Fig. 11", whole=True),
    "epochs": _table("epochs:epochs", "epoch metrics of every strategy and exit", "Table 3"),
    "epochs-digest": _table("epochs:digest", "epoch metrics in short: by depth, the best, the worst",
        "Table 3", whole=True),
    "anova-costs": _table("anova:anova_costs",
        "F tests of the core strategies: time, memory, power, energy", "Table 4", whole=True),
    "order-costs": _table("orders:order_costs", "who costs more than whom, in one line each",
        "Table 5", whole=True),
    "baseline": _table("exits:baseline", "networks without early exits", "Table 6", whole=True),
    "anova-hybrids": _table("anova:anova_hybrids", "F tests of each hybrid against its parents",
        "section 6.3", whole=True),
    "decision": _table("matrix:decision",
        "strategies by characteristic, the paper's words beside ours", "Table 8", whole=True),
    "guidelines": _table("matrix:guidelines", "the paper's advice, each piece tied to claims",
        "Table 9, section 8.1", whole=True),
    "pairs-one-way": _table("anova:pairs_one_way",
        "all pairs of core strategies the paper's way: Tukey's HSD, Games–Howell", "Fig. 11"),
    "tests-one-way": _table("anova:tests_one_way",
        "loss, accuracy and costs at every exit, one-way, and what that assumes"),
}
# fmt: on
FIGURES = {
    "curves": "Figs. 8, 9, 18, 19",
    **{"loss-core": "Fig. 8", "accuracy-core": "Fig. 9"},
    **{"loss-hybrid": "Fig. 18", "accuracy-hybrid": "Fig. 19"},
    **{"overall": "Figs. 10, 20", "overall-core": "Fig. 10", "overall-hybrid": "Fig. 20"},
    "significance": "Fig. 11",
    "time-by-exit": "Figs. 12, 13",
    "time-total": "Fig. 14",
    "memory-power": "Figs. 15, 16, 17",
}
PUBLICATION = Publication(
    tables=TABLES,
    answers=FIGURES,
    claims=Path(__file__).with_name("claims.yaml"),
    families=FAMILIES,
    departures="offramp.paper.departures:departures",
)
