"""The studentized range: against scipy's, and Student's t where there are two groups."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from offramp.analysis.stats.pairwise import critical, tail


@pytest.mark.parametrize("df", [1, 2, 4.3, 20, 1e4, 1e6])
def test_two_groups_are_students_t(df: float) -> None:
    for q in (0.01, 0.5, 3, 4.5, 8, 15, 30, 200, 5000):
        assert abs(tail(q, 2, df) - 2 * stats.t.sf(q / np.sqrt(2), df)) < 1e-13
    for level in (0.5, 0.95, 0.999):
        expected = np.sqrt(2) * stats.t.ppf(0.5 + level / 2, df)
        np.testing.assert_allclose(critical(level, 2, df), expected, rtol=1e-8)


@pytest.mark.parametrize("k", [3, 5, 9, 20])
def test_more_groups_agree_with_scipy(k: int) -> None:
    for df in (2, 4.3, 20):
        for q in (1.0, 4.0, 9.0):
            assert abs(tail(q, k, df) - stats.studentized_range.sf(q, k, df)) < 1e-9
    np.testing.assert_allclose(
        critical(0.95, k, 20), stats.studentized_range.ppf(0.95, k, 20), rtol=1e-7
    )


def test_ends() -> None:
    assert tail(0.0, 5, 20) == pytest.approx(1.0, abs=1e-14)
    assert 0 <= tail(1e300, 5, 20) < 1e-13
