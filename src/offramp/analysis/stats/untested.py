"""What could not be tested, and when numbers do not vary enough to test anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TINY = 1e-140  # squares of what is smaller vanish


@dataclass(frozen=True)
class Untested:
    """A test that was not made. why: one clause, fit to be printed after a colon."""

    why: str


def same(values: Floats, scale: float | None = None) -> bool:
    """Whether values differ by no more than rounding. scale: the magnitude of the numbers that they were
    computed from; of the values themselves when None."""
    if values.size == 0:
        return True
    if scale is None:
        scale = float(np.abs(values).max())
    return bool(np.ptp(values) <= max(64 * np.finfo(float).eps * scale, TINY))
