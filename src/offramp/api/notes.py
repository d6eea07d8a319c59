"""What a caller in Python is told before and while something trains."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from offramp.errors import OfframpWarning
from offramp.study.plan.plan import Plan


def warn(notes: Iterable[str]) -> None:
    """Warn the caller of the function that calls this."""
    for line in notes:
        warnings.warn(line, OfframpWarning, stacklevel=3)


def words(plan: Plan) -> dict[str, str]:
    """What each phase is called, by its key; where a plan has several trials, with its seed and the
    strategies that read it."""
    if len(plan.trials) == 1:
        return {key: node.name for key, node in plan.nodes.items()}
    return plan.titles
