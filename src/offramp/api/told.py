"""What a caller in Python is told before and while something trains."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from offramp.data.load import notes
from offramp.errors import OfframpWarning
from offramp.study.plan.plan import Plan


def warn(notes: Iterable[str]) -> None:
    """Warn the caller of the function that calls this."""
    for line in notes:
        warnings.warn(line, OfframpWarning, stacklevel=3)


def plan_notes(plan: Plan) -> list[str]:
    """What to know before a plan is run, as the command line says it."""
    found = [f"{plan.data.name}: {line}" for line in notes(plan.data.provenance)]
    return [*(f"{line}." for line in plan.remarks), *found]


def words(plan: Plan) -> dict[str, str]:
    """What each phase is called, by its key; where a plan has several trials, with its seed and the
    strategies that read it."""
    if len(plan.trials) == 1:
        return {key: node.name for key, node in plan.nodes.items()}
    return plan.titles
