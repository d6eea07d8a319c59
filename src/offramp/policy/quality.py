"""How good probabilities and scores are, and intervals of shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
BINS = 15


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its two-sided interval."""

    value: float
    low: float
    high: float


def share(hits: int, rows: int, level: float = 0.95) -> Interval:
    """`hits` of `rows`, at least one row, with the Clopper–Pearson interval. level: between 0 and 1."""
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, hits, rows - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, rows - hits)) if hits < rows else 1.0
    return Interval(hits / rows, low, high)


def difference(lost: int, gained: int, rows: int, level: float = 0.95) -> Interval:
    """The loss of accuracy, (lost - gained) / rows, of paired answers. Its interval joins those of the
    two shares, each at half the error: a little wide, but not empty where few answers differ."""
    half = (1 + level) / 2
    down, up = share(lost, rows, half), share(gained, rows, half)
    return Interval((lost - gained) / rows, down.low - up.high, down.high - up.low)


def calibration_error(confidence: Floats, right: Bools, bins: int = BINS) -> float | None:
    """Expected calibration error: |accuracy - mean confidence| in equal-width bins of confidence,
    weighted by their rows. confidence: [N], 0 to 1; NaN rows are left out; None where none is left."""
    known = ~np.isnan(confidence)
    if not known.any():
        return None
    sure, hits = confidence[known].astype(np.float64), right[known]
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = np.bincount(place, hits, bins) - np.bincount(place, sure, bins)
    return float(np.abs(gaps).sum() / len(sure))


def auroc(scores: Floats, right: Bools) -> float | None:
    """The chance that a right row scores higher than a wrong one, a tie counting half; None where
    all rows are right or all wrong. scores, right: [N]."""
    hits = int(right.sum())
    misses = len(right) - hits
    if not hits or not misses:
        return None
    ranks = stats.rankdata(scores)
    return float((ranks[right].sum() - hits * (hits + 1) / 2) / (hits * misses))
