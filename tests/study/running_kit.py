"""Small plans for tests of runs."""

from collections.abc import Sequence
from typing import Any

from kit import STRATEGIES

from offramp.study.plan.plan import Plan
from support import tiny_plan, tiny_study

RECIPES: dict[str, dict[str, Any]] = {
    "momentum": {"epochs": 3},
    "adam": {"epochs": 3, "optimizer": "adam", "schedule": "cosine", "warmup_epochs": 1.5},
    "lookahead": {"epochs": 3, "average": "lookahead", "average_every": 2, "decoupled_decay": True},
    "patience": {"epochs": 6, "patience": 1, "learning_rate": 0.5, "optimizer": "adamw"},
}


def small_plan(recipe: str = "momentum", strategies: Sequence[str] = STRATEGIES, **more: Any) -> Plan:
    return tiny_plan(tiny_study(strategies, recipe=RECIPES[recipe], **more))


def by_phase(plan: Plan, name: str) -> str:
    """The key of the one node of that name."""
    (key,) = (key for key, node in plan.nodes.items() if node.name == name)
    return key
