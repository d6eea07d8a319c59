"""Do groups differ? Pure functions over data frames; docs/statistics.md says why they are so."""

from __future__ import annotations

from offramp.analysis.stats.analyze import Analysis, analyze, analyze_by, analyze_sample
from offramp.analysis.stats.order import GroupOrder, order, rule
from offramp.analysis.stats.sample import Columns, Group, Sample, Untested, sample

__all__ = [
    "Analysis",
    "Columns",
    "Group",
    "GroupOrder",
    "Sample",
    "Untested",
    "analyze",
    "analyze_by",
    "analyze_sample",
    "order",
    "rule",
    "sample",
]
