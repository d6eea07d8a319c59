"""What advice is for."""

from __future__ import annotations

from typing import Literal, get_args

from offramp.errors import OfframpError, nearest

Goal = Literal["accuracy", "latency", "training-time", "memory", "energy", "pareto"]
GOALS: tuple[Goal, ...] = get_args(Goal)


def known_goal(name: str) -> Goal:
    """The goal of that name. Raises OfframpError where there is none."""
    for goal in GOALS:
        if goal == name:
            return goal
    raise OfframpError(f"no goal '{name}'{nearest(name, GOALS)}")
