"""One temperature per exit: the factor that makes its confidence honest (Guo et al., 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
COLDEST, WARMEST = 0.05, 20.0  # beyond, a split that is all right or all wrong would send it


def fit(logits: Floats, labels: Ints) -> tuple[float, ...]:
    """The temperature of least cross-entropy at each exit, between 0.05 and 20.

    logits: [N, E, C]; labels: [N]; rows with a logit that is not finite are left out; 1 where none is
    left. Cross-entropy is convex in 1/T, so the minimum found is the minimum.
    """
    return tuple(_one(logits[:, exit], labels) for exit in range(logits.shape[1]))


def _one(logits: Floats, labels: Ints) -> float:
    whole = np.isfinite(logits).all(axis=1)
    kept, truth = logits[whole].astype(np.float64), labels[whole]
    if not len(kept):
        return 1.0
    rows = np.arange(len(kept))

    def loss(inverse: float) -> float:
        return float(-log_softmax(kept * inverse, axis=1)[rows, truth].mean())

    found = minimize_scalar(loss, bounds=(1 / WARMEST, 1 / COLDEST), method="bounded")
    return round(float(1 / found.x), 6)
