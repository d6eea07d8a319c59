"""What happened lately: sums over the last minute, ten minutes and hour, in memory of one size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

WINDOWS = {"1 min": 60, "10 min": 600, "1 h": 3600}
LONGEST = max(WINDOWS.values())


class Windows:
    """Sums of some numbers, second by second. columns: how many numbers there are."""

    def __init__(self, columns: int) -> None:
        self._sums = np.zeros((LONGEST, columns))
        self._second = np.full(LONGEST, -1, np.int64)  # that a row has the sums of

    def add(self, now: float, values: Mapping[int, float]) -> None:
        """now: seconds of a clock that never goes back; values: by column."""
        second = int(now)
        row = second % LONGEST
        if self._second[row] != second:
            self._second[row], self._sums[row] = second, 0.0
        for column, value in values.items():
            self._sums[row, column] += value

    def sums(self, now: float, seconds: int) -> NDArray[np.float64]:
        """The sums [columns] of the last seconds; the one that has begun is one of them."""
        lately = (self._second >= 0) & (self._second > int(now) - seconds)
        return np.asarray(self._sums[lately].sum(axis=0))
