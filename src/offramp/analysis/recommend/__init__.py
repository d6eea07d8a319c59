"""Advice: the paper's guidelines, and rankings from evidence with what cannot be told apart."""

from __future__ import annotations

from offramp.analysis.recommend.goals import Facts, Preference
from offramp.analysis.recommend.rank import Advice, Ranked, RuledOut, recommend, sure
from offramp.paper.guidelines import GOALS, Goal, Guideline, guidelines

__all__ = [
    "GOALS",
    "Advice",
    "Facts",
    "Goal",
    "Guideline",
    "Preference",
    "Ranked",
    "RuledOut",
    "guidelines",
    "recommend",
    "sure",
]
