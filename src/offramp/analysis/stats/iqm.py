"""Interquartile means over runs and tasks, with bootstrap intervals.

After Agarwal, Schwarzer, Castro, Courville and Bellemare (*Deep reinforcement learning at the edge of
the statistical precipice*, 2021): the mean of the middle half of all scores is less moved by outliers
than the mean and less wasteful than the median. Runs are drawn anew within each task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

DRAWS = 10_000
LEVEL = 0.95  # of the interval
LEAST = 3  # runs of a task; fewer say nothing of how runs vary


class Iqm(NamedTuple):
    """An interquartile mean, and the ends of its interval."""

    value: float
    low: float
    high: float


def iqm(tasks: Sequence[Sequence[float]], draws: int = DRAWS) -> Iqm:
    """The interquartile mean of all scores of all tasks, and its 95% percentile interval of a
    bootstrap stratified by task. tasks: scores of each task's runs, at least one.

    The interval is empty (NaN) where a task has fewer than three runs. Draws are a function of the
    scores' numbers alone, so equal scores give equal intervals.

    >>> iqm([[1.0, 2.0, 3.0, 100.0]]).value
    2.5
    """
    scores = [np.sort(np.asarray(task, dtype=np.float64)) for task in tasks]
    value = float(stats.trim_mean(np.concatenate(scores), 0.25))
    if min(map(len, scores)) < LEAST:
        return Iqm(value, float("nan"), float("nan"))
    generator = np.random.default_rng(0)
    drawn = [task[generator.integers(len(task), size=(draws, len(task)))] for task in scores]
    draws_of_mean = stats.trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
    low, high = np.quantile(draws_of_mean, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Iqm(value, float(low), float(high))
