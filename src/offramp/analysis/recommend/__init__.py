"""Rankings from evidence, with what cannot be told apart."""

from __future__ import annotations

from offramp.analysis.goals import GOALS, Goal
from offramp.analysis.recommend.goals import Facts, Preference
from offramp.analysis.recommend.rank import Advice, Ranked, RuledOut, recommend, sure

__all__ = [
    "GOALS",
    "Advice",
    "Facts",
    "Goal",
    "Preference",
    "Ranked",
    "RuledOut",
    "recommend",
    "sure",
]
