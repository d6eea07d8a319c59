"""What is the paper's alone: tables, claims, guidelines, families of strategies, recipes, and where runs
depart from these. It uses the doors that a user's own file has; nothing else names it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from offramp.analysis.families import StrategyFamilies
from offramp.report.registry import Family, Publication

CORE = ("joint", "separate", "branch-wise", "two-stage", "distillation")
# Section 6.3. Pretrained-branch trains the backbone first, as two-stage does, then branch by branch.
PARENTS = {
    "joint-branch": ("joint", "branch-wise"),
    "joint-two-stage": ("joint", "two-stage"),
    "pretrained-branch": ("branch-wise", "two-stage"),
}
FAMILIES = StrategyFamilies(CORE, PARENTS)
LETTERS: Mapping[str, str] = {
    **{"joint": "J", "distillation": "D", "branch-wise": "B", "separate": "S", "two-stage": "T"},
    **{"joint-branch": "JB", "joint-two-stage": "JT", "pretrained-branch": "PB", "baseline": "N"},
}


def spelled(strategies: Iterable[str]) -> str:
    """` J = joint, T = two-stage.`: what letters stand for, a sentence to end a caption with; nothing
    where no strategy has one."""
    letters = ", ".join(f"{LETTERS[s]} = {s}" for s in strategies if s in LETTERS)
    return f" {letters}." if letters else ""


def _table(of: str, shows: str, paper: str = "", whole: bool = False) -> Family:
    return Family(f"{__name__}.{of}", shows, paper, whole=whole)


# In the order in which a reader finds them.
# fmt: off
TABLES = {
    "exits": _table("exits:exits", "accuracy by exit, loss trend, time, power", "Table 7"),
    "anova": _table("differences:anova", "F tests of the core strategies: loss and accuracy",
        "Table 2", whole=True),
    "order-accuracy": _table(
        "differences:order_accuracy", "who is more accurate than whom, in one line each", "Fig. 11",
        whole=True),
    "order-loss": _table("differences:order_loss", "whose loss is higher than whose, in one line each",
        "Fig. 11", whole=True),
    "epochs": _table("exits:epochs", "epoch metrics of every strategy and exit", "Table 3"),
    "epochs-digest": _table("exits:digest", "epoch metrics in short: by depth, the best, the worst",
        "Table 3", whole=True),
    "anova-costs": _table("differences:anova_costs",
        "F tests of the core strategies: time, memory, power, energy", "Table 4", whole=True),
    "order-costs": _table("differences:order_costs", "who costs more than whom, in one line each",
        "Table 5", whole=True),
    "baseline": _table("exits:baseline", "networks without early exits", "Table 6", whole=True),
    "anova-hybrids": _table("differences:anova_hybrids", "F tests of each hybrid against its parents",
        "section 6.3", whole=True),
    "decision": _table("matrix:decision",
        "strategies by characteristic, the paper's words beside ours", "Table 8", whole=True),
    "guidelines": _table("matrix:guidelines", "the paper's advice, each piece tied to claims",
        "Table 9, section 8.1", whole=True),
    "pairs-one-way": _table("differences:pairs_one_way",
        "all pairs of core strategies the paper's way: Tukey's HSD, Games–Howell", "Fig. 11"),
    "tests-one-way": _table("differences:tests_one_way",
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
