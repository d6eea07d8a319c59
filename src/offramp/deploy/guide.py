"""Which strategy to train with, where there are no runs of one's own to go by: the paper's advice."""

from __future__ import annotations

from dataclasses import dataclass

from offramp.errors import OfframpError, nearest


@dataclass(frozen=True)
class Advice:
    """strategy: a name.  options: of it.  why: a sentence."""

    strategy: str
    options: tuple[tuple[str, str], ...]
    why: str


GOALS = {
    "accuracy": (
        "distillation",
        "the most accurate in the paper, and best at generalizing; its teacher costs memory",
    ),
    "training-time": ("two-stage", "the paper found it the fastest to train, and moderately accurate"),
    "memory": (
        "two-stage",
        "its exits train apart from the backbone, which the paper advises for small devices",
    ),
    "energy": ("joint", "one shared optimization, which the paper advises where power is scarce"),
    "balanced": (
        "pretrained-branch",
        "the paper's best balance of accuracy and cost; it resists overfitting at deep exits",
    ),
}
"""The strategy that section 8.1 (and 8, for memory) of the paper leads to, by what matters most."""

HEADS_ONLY = ("distillation", "two-stage")
"""Those that can leave a given backbone as it is."""


def advice(goal: str, keep_backbone: bool) -> Advice:
    """What to train with. Raises OfframpError for an unknown goal."""
    if goal not in GOALS:
        raise OfframpError(f"no goal '{goal}'{nearest(goal, GOALS)}")
    strategy, why = GOALS[goal]
    if not keep_backbone:
        return Advice(strategy, (), why)
    if strategy not in HEADS_ONLY:
        strategy = "two-stage"
        why = (
            "the backbone is kept, so only heads train, and of the two ways to do that it is the cheaper"
        )
    return Advice(strategy, (("backbone", "kept"),), why)
