"""What leaving early at a confidence threshold comes to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

Floats = NDArray[np.floating]


def confidence(logits: Floats) -> Floats:
    """The largest softmax probability. logits: [N, E, C]; returns [N, E]."""
    return np.asarray(np.exp(log_softmax(logits.astype(np.float64), axis=2).max(axis=2)))


def at_thresholds(
    logits: Floats,
    labels: NDArray[np.integer],
    macs: Sequence[float],
    full_macs: float,
    thresholds: Sequence[float],
) -> list[tuple[float, float]]:
    """Of each threshold accuracy (0 to 1) and compute (mean MACs an image as a share of `full_macs`),
    where an image leaves at the first exit whose confidence is at least that, else at the last.

    logits: [N, E, C]; macs: of an image that leaves at each exit, [E]; full_macs: of the plain network.
    """
    confidences, answers = confidence(logits), logits.argmax(axis=2)
    found = []
    for threshold in thresholds:
        sure = confidences >= threshold
        sure[:, -1] = True
        leaves = sure.argmax(axis=1)
        given = np.take_along_axis(answers, leaves[:, None], axis=1)[:, 0]
        shares = np.bincount(leaves, minlength=len(macs)) / len(labels)
        compute = float(shares @ np.asarray(macs, dtype=float) / full_macs)
        found.append((float((given == labels).mean()), compute))
    return found
