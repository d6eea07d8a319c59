"""A threshold on confidence for each exit and predicted class, by learned offsets.

At the same confidence, leaving may lose more for one predicted class than for another. At each exit, the
chance that leaving loses nothing is fitted as a logistic curve of the log-odds of confidence, with an
offset for each class. The offsets, divided by the curve's slope, go to the score `classwise`. One
threshold an exit is then solved on it as on any other score; for each class it is a threshold of its own
on confidence. Offsets are shrunk: a class with too few images takes the common threshold, and so do all
classes where they differ no more than by chance.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from offramp.policy import scoring
from offramp.policy.gates import GateNumbers

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]

SUREST = 16.0  # log-odds; float32 tells no confidences beyond apart
FLATTEST = 0.1  # slope of a curve; flatter ones would make offsets of nothing
WEAK = 100.0  # variance of the prior of a curve's two numbers; what one cut tells apart stays finite
WIDEST = 4.0  # variance of classes; one that is far off leaves the others shrunk


def learned(logits: Floats, labels: Ints) -> GateNumbers:
    """The offsets of all exits but the last, which has none: one a class, 0 for the common threshold,
    more where less confidence is enough. logits: [N, E, C].  labels: [N].

    Leaving loses where the full network is right and the exit is wrong. Rows with a logit that is not
    finite are left out.

    >>> import numpy as np
    >>> sure, torn, other = [2.0, 0.0], [1.0, 0.0], [0.0, 1.5]
    >>> rows = [[sure, sure], [torn, sure], [other, other], [other, sure]]
    >>> first, last = learned(np.array(rows * 30), np.array([0, 0, 1, 0] * 30))
    >>> first[0] > 0 > first[1], last
    (True, None)
    """
    whole = np.isfinite(logits).all(axis=(1, 2))
    kept, truth = np.asarray(logits[whole], np.float64), labels[whole]
    said = scoring.answers(kept)
    right = said == truth[:, None]
    safe = right | ~right[:, -1:]
    early, classes = logits.shape[1] - 1, logits.shape[2]
    found = (_offsets(_log_odds(kept[:, k]), said[:, k], safe[:, k], classes) for k in range(early))
    return (*found, None)


def _log_odds(logits: Floats) -> Floats:
    """Of the largest probability against all others. [N, C] → [N]."""
    largest = logits.argmax(axis=1)[:, None]
    others = logits.copy()
    np.put_along_axis(others, largest, -np.inf, axis=1)
    found = np.take_along_axis(logits, largest, axis=1)[:, 0] - logsumexp(others, axis=1)
    return np.asarray(np.minimum(found, SUREST))


def _offsets(odds: Floats, said: Ints, safe: Bools, classes: int) -> tuple[float, ...]:
    """odds: [N], log-odds of confidence.  said: [N] classes.  safe: [N], whether leaving loses nothing.

    The variance of classes is one by moments: what their squared residuals under the common curve have
    beyond what chance gives them, and beyond a standard error of that, as a few rare losses go far.
    """
    none = (0.0,) * classes
    if safe.all() or not safe.any():
        return none
    constant, slope, _ = _curve(odds, said, safe, classes, 0.0)
    chance = expit(constant + slope * odds)
    residual = np.bincount(said, safe - chance, classes)
    each = chance * (1 - chance)
    information = np.bincount(said, each, classes)
    spread = 2 * information @ information + each @ (1 - 6 * each)
    error = math.sqrt(max(spread, 0.0))  # a class of one even row has none, up to rounding
    variance = (residual @ residual - information.sum() - error) / (information @ information)
    if not variance > 0:
        return none
    _, slope, own = _curve(odds, said, safe, classes, math.sqrt(min(variance, WIDEST)))
    shown = np.clip(own / slope, -scoring.FARTHEST, scoring.FARTHEST)
    return tuple(round(float(number), 6) + 0.0 for number in shown)


def _curve(
    odds: Floats, said: Ints, safe: Bools, classes: int, spread: float
) -> tuple[float, float, Floats]:
    """Constant, slope and offsets [C] of the likeliest curve, with normal priors: of offsets with the
    deviation `spread`. What is minimized is convex."""
    sign = np.where(safe, 1.0, -1.0)

    def loss(numbers: Floats) -> tuple[float, Floats]:
        pair, units = numbers[:2], numbers[2:]
        distance = sign * (pair[0] + pair[1] * odds + spread * units[said])
        pull = -sign * expit(-distance)
        value = np.logaddexp(0, -distance).sum() + pair @ pair / (2 * WEAK) + units @ units / 2
        ends = np.array([pull.sum(), pull @ odds]) + pair / WEAK
        return float(value), np.append(ends, spread * np.bincount(said, pull, classes) + units)

    start = np.append([0.0, 1.0], np.zeros(classes))
    free = (None, None)
    bounds = [free, (FLATTEST, None), *[free] * classes]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12}).x
    return float(found[0]), float(found[1]), spread * found[2:]
