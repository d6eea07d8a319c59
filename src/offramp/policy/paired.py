"""Differences between paired values, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats


@dataclass(frozen=True)
class Difference:
    """Mean of a - b over the pairs and its confidence interval; None where one pair allows none."""

    mean: float
    low: float | None
    high: float | None
    pairs: int


def paired(
    a: Sequence[float] | NDArray[np.floating],
    b: Sequence[float] | NDArray[np.floating],
    level: float = 0.95,
) -> Difference:
    """Student's t interval of the mean paired difference. a, b: [N]; level: between 0 and 1.

    Raises ValueError when the lengths differ or are zero.
    """
    first, other = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != other.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"need two equally long lists, got {first.shape} and {other.shape}")
    differences = first - other
    mean, count = float(differences.mean()), len(differences)
    if count < 2:
        return Difference(mean, None, None, count)
    half = float(stats.t.ppf(0.5 + level / 2, count - 1) * differences.std(ddof=1) / np.sqrt(count))
    return Difference(mean, mean - half, mean + half, count)
