"""Advice: the paper's guidelines, and rankings from evidence with what cannot be told apart."""

from __future__ import annotations

from offramp.analysis.recommend.operating import POINTS
from offramp.analysis.recommend.rank import recommend, sure
from offramp.analysis.recommend.records import Advice, Facts, Ranked, RuledOut, Wish
from offramp.paper.guidelines import GOALS, Goal, Guideline, guidelines

__all__ = [
    "GOALS",
    "POINTS",
    "Advice",
    "Facts",
    "Goal",
    "Guideline",
    "Ranked",
    "RuledOut",
    "Wish",
    "guidelines",
    "recommend",
    "sure",
]
