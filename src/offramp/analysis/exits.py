"""Metrics of logits at every exit, and what leaving early at a confidence threshold comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

Floats = NDArray[np.floating]


def accuracy(logits: Floats, labels: NDArray[np.integer]) -> Floats:
    """Share of right answers by exit. logits: [N, E, C]; labels: [N]; returns [E], 0 to 1."""
    return np.asarray((logits.argmax(axis=2) == labels[:, None]).mean(axis=0))


def cross_entropy(logits: Floats, labels: NDArray[np.integer]) -> Floats:
    """Mean cross-entropy by exit, in nats. logits: [N, E, C]; labels: [N]; returns [E]."""
    logs = log_softmax(logits.astype(np.float64), axis=2)
    chosen = np.take_along_axis(logs, labels[:, None, None], axis=2)[:, :, 0]
    return np.asarray(-chosen.mean(axis=0))


def confidence(logits: Floats) -> Floats:
    """The largest softmax probability. logits: [N, E, C]; returns [N, E]."""
    return np.asarray(np.exp(log_softmax(logits.astype(np.float64), axis=2).max(axis=2)))


@dataclass(frozen=True)
class Operating:
    """What a threshold gives: accuracy (0 to 1), the mean MACs an image as a share of `full_macs`, and
    the share of images that leave at each exit (they add up to 1)."""

    threshold: float
    accuracy: float
    compute: float
    leaving: tuple[float, ...]


def at_threshold(
    logits: Floats,
    labels: NDArray[np.integer],
    macs: Sequence[float],
    full_macs: float,
    threshold: float,
) -> Operating:
    """Leave at the first exit whose confidence is at least `threshold`, else at the last.

    logits: [N, E, C]; macs: of an image that leaves at each exit, [E]; full_macs: of the plain network.
    """
    return at_thresholds(logits, labels, macs, full_macs, [threshold])[0]


def at_thresholds(
    logits: Floats,
    labels: NDArray[np.integer],
    macs: Sequence[float],
    full_macs: float,
    thresholds: Sequence[float],
) -> tuple[Operating, ...]:
    """`at_threshold` for each of several, reading the logits once."""
    confidences, answers = confidence(logits), logits.argmax(axis=2)
    found = []
    for threshold in thresholds:
        sure = confidences >= threshold
        sure[:, -1] = True
        leaves = sure.argmax(axis=1)
        given = np.take_along_axis(answers, leaves[:, None], axis=1)[:, 0]
        shares = np.bincount(leaves, minlength=len(macs)) / len(labels)
        found.append(
            Operating(
                threshold,
                float((given == labels).mean()),
                float(shares @ np.asarray(macs, dtype=float) / full_macs),
                tuple(float(s) for s in shares),
            )
        )
    return tuple(found)
