"""Interquartile means and their intervals, on data whose truth is known."""

import numpy as np
import pytest

from offramp.report.tables.compute import iqm


def test_the_mean_of_the_middle_half() -> None:
    assert iqm([[1, 2, 3, 4], [5, 6, 7, 800]]).value == pytest.approx((3 + 4 + 5 + 6) / 4)
    mean = iqm([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])
    assert (mean.value, mean.low, mean.high) == (0.5, 0.5, 0.5)


def test_two_runs_say_nothing_of_how_runs_vary() -> None:
    mean = iqm([[0.1, 0.2], [0.3, 0.4, 0.5]])
    assert mean.value == pytest.approx(0.3) and np.isnan(mean.low) and np.isnan(mean.high)


def test_order_of_runs_does_not_matter() -> None:
    """Of ten runs each: of three, draws in another order come to the same quantiles."""
    draw = np.random.default_rng(1)
    tasks = draw.normal(0.7, 0.05, size=(2, 10))
    assert iqm(tasks.tolist()) == iqm([draw.permutation(task).tolist() for task in tasks])


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Normal scores on four tasks of one mean: its interquartile mean is that mean. A bootstrap of ten
    runs covers somewhat less than 95 %."""
    draw = np.random.default_rng(6)
    covered = 0
    for _ in range(200):
        mean = iqm(draw.normal(0.7, 0.05, size=(4, 10)).tolist(), draws=400)
        covered += mean.low <= 0.7 <= mean.high
    assert 0.86 <= covered / 200 <= 0.99
