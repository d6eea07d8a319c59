"""What a curve over epochs comes to: epoch metrics, which the paper's Table 3 leaves undefined.

All take values of epochs 1, 2, ... [n] of one exit and one phase, losses in nats, accuracies 0 to 1.
None: there is no such epoch, or there are too few.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WITHIN = 0.005  # of the peak accuracy: saturated
ABOVE = 0.05  # of the least validation loss: overfitted
RUN = 5  # epochs in a row that make overfitting
TAIL = 0.2  # the last share of the epochs, for stability
SPIKE = 0.2  # a rise by this share of the loss of the epoch before
ROUNDING = 1e-9


def min_loss_epoch(validation_loss: Floats) -> int | None:
    """The first epoch with the least validation loss."""
    return None if not len(validation_loss) else int(np.argmin(validation_loss)) + 1


def peak_epoch(validation_accuracy: Floats) -> int | None:
    """The first epoch with the highest validation accuracy."""
    return None if not len(validation_accuracy) else int(np.argmax(validation_accuracy)) + 1


def saturation_epoch(validation_accuracy: Floats) -> int | None:
    """The first epoch from which on accuracy stays within 0.5 points of its peak; None where the last
    one does not."""
    if not len(validation_accuracy):
        return None
    off = validation_accuracy < validation_accuracy.max() - WITHIN - ROUNDING
    if off[-1]:
        return None
    return int(np.flatnonzero(off)[-1]) + 2 if off.any() else 1


def overfitting_epoch(validation_loss: Floats, training_loss: Floats) -> int | None:
    """The first of five consecutive epochs, after the one with the least validation loss, in each of
    which validation loss is at least 5 % above that least one and training loss is below that of the
    epoch before. training_loss: [n], running, as it is recorded every epoch."""
    if len(validation_loss) != len(training_loss) or not len(validation_loss):
        return None
    least = int(np.argmin(validation_loss))
    high = validation_loss >= (1 + ABOVE) * validation_loss[least] * (1 - ROUNDING)
    falls = np.diff(training_loss, prepend=-np.inf) < 0
    over = high & falls & (np.arange(len(high)) > least)
    if len(over) < RUN:
        return None
    runs = np.flatnonzero(np.lib.stride_tricks.sliding_window_view(over, RUN).all(axis=1))
    return int(runs[0]) + 1 if len(runs) else None


def overfits(validation_loss: Floats, training_loss: Floats) -> float:
    """1 where there is an epoch from which on the exit overfits, else 0."""
    return float(overfitting_epoch(validation_loss, training_loss) is not None)


def validation_stability(validation_loss: Floats) -> float | None:
    """Sample standard deviation of the changes of validation loss from epoch to epoch, over the last
    20 % of the epochs (rounded up); smaller is more stable. None with fewer than two changes."""
    changes = np.diff(validation_loss)
    changes = changes[max(len(changes) - math.ceil(TAIL * len(validation_loss) - ROUNDING), 0) :]
    return float(changes.std(ddof=1)) if len(changes) > 1 else None


def loss_rise(validation_loss: Floats) -> float | None:
    """How far the last validation loss is above the least one, as a share of it."""
    if not len(validation_loss) or validation_loss.min() <= 0:
        return None
    return float(validation_loss[-1] / validation_loss.min() - 1)


def loss_spikes(validation_loss: Floats) -> int | None:
    """Epochs whose validation loss is at least 20 % above that of the epoch before."""
    if len(validation_loss) < 2:
        return None
    before, after = validation_loss[:-1], validation_loss[1:]
    return int((after >= (1 + SPIKE) * before * (1 - ROUNDING)).sum())


def largest_spike(validation_loss: Floats) -> float | None:
    """The largest rise of validation loss from an epoch to the next, in nats; 0 where it never rises."""
    return max(0.0, float(np.diff(validation_loss).max())) if len(validation_loss) > 1 else None
