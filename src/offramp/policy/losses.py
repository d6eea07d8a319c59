"""What leaving at an exit loses, for each row and exit: [N, E] of 0 and 1.

`answers` are the classes that the exits say, [N, E]; the last column is the full network.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


def wrong(answers: Ints, labels: Ints) -> Floats:
    """1 where the exit is wrong."""
    return np.asarray(answers != labels[:, None], dtype=np.float64)


def harm(answers: Ints, labels: Ints) -> Floats:
    """1 where the full network is right and the exit wrong."""
    right = answers == labels[:, None]
    return np.asarray(right[:, -1:] & ~right, dtype=np.float64)


def disagreement(answers: Ints) -> Floats:
    """1 where the exit says something else than the full network; needs no labels."""
    return np.asarray(answers != answers[:, -1:], dtype=np.float64)


def taken(values: Floats, leaves: Ints) -> Floats:
    """The value of the exit that each row leaves at. values: [N, E]; leaves: [N]; returns [N]."""
    return np.asarray(np.take_along_axis(values, leaves[:, None], axis=1)[:, 0])
