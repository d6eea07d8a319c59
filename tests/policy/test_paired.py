from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from offramp.policy.quality import Difference, paired


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("pairs", [2, 3, 5, 40])
def test_the_interval_is_that_of_the_paired_t_test(pairs: int, level: float) -> None:
    generator = np.random.default_rng(pairs)
    a = generator.normal(0.8, 0.1, pairs)
    b = 0.5 * a + generator.normal(0.3, 0.05, pairs)
    difference = paired(a, b, level)
    interval = stats.ttest_rel(a, b).confidence_interval(level)
    assert difference.pairs == pairs
    assert difference.mean == pytest.approx((a - b).mean())
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))


def test_pairs_by_hand() -> None:
    """Of one pair there is no interval, of equal differences one of no width; of 95 % unless said."""
    a, b = [0.9, 0.7, 0.8], [0.5, 0.6, 0.6]
    assert paired(a, b) == paired(a, b, 0.95)
    forward, other = paired([3, 5], [1, 2]), paired([1, 2], [3, 5])
    assert forward.mean == 2.5 == -other.mean and forward.low == -(other.high or 0)
    assert paired([0.75], [0.5]) == Difference(0.25, None, None, 1)
    assert paired([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]) == Difference(1.0, 1.0, 1.0, 3)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])])
def test_lists_that_do_not_pair_are_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="equally long"):
        paired(a, b)
