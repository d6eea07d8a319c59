"""Checks of what the one-way analysis assumes: normal residuals, equal variances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from offramp.analysis.stats.untested import Floats, Untested, same

MOST = 5000  # scipy's p is not to be trusted beyond


@dataclass(frozen=True)
class Check:
    """A statistic and its p: small where the assumption is doubtful."""

    statistic: float
    p: float


def shapiro(groups: Sequence[Floats]) -> Check | Untested:
    """Shapiro and Wilk's test that values minus their group's mean are normal. groups: [n_i] each."""
    residuals = np.concatenate([group - group.mean() for group in groups])
    if not 3 <= len(residuals) <= MOST:
        return Untested(f"Shapiro and Wilk's test takes 3 to {MOST} values, not {len(residuals)}")
    if same(residuals, float(max(np.abs(group).max() for group in groups))):
        return Untested("no group varies")
    found = stats.shapiro(residuals)
    return Check(float(found.statistic), float(found.pvalue))


def levene(groups: Sequence[Floats]) -> Check | Untested:
    """Levene's test of equal variances, around medians (Brown and Forsythe 1974). groups: [n_i] each."""
    if len(groups) < 2:
        return Untested("a comparison needs two groups")
    if any(len(group) < 3 for group in groups):
        return Untested("Levene's test needs three values in each group")
    spreads = [np.abs(group - np.median(group)) for group in groups]
    scale = float(max(np.abs(group).max() for group in groups))
    if all(same(spread, scale) for spread in spreads):
        return Untested("distances from the median do not vary within any group")
    found = stats.levene(*groups, center="median")
    return Check(float(found.statistic), float(found.pvalue))
