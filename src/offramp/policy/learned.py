"""What exits learn on validation for scores that read it: gates, and offsets of classes.

**Gates** learn from an exit's own answer whether an image should leave there, after JEI-DNN (Regol et
al., arXiv 2310.09163): the best exit of an image is the one of least cross-entropy + λ · cost, and the
gate of an exit learns whether the best exit is this one or an earlier one, from four statistics of its
answer. A gate is a number from 0 to 1; thresholds on it are then solved as on any other score.

**Offsets** make a threshold on confidence for each exit and predicted class. At the same confidence,
leaving may lose more for one predicted class than for another. At each exit, the chance that leaving
loses nothing is fitted as a logistic curve of the log-odds of confidence, with an offset for each class.
The offsets, divided by the curve's slope, go to the score `classwise`. One threshold an exit is then
solved on it as on any other score; for each class it is a threshold of its own on confidence. Offsets
are shrunk: a class with too few images takes the common threshold, and so do all classes where they
differ no more than by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logsumexp

from offramp.policy import scoring
from offramp.policy.costs import Costs

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]
GateNumbers = tuple[tuple[float, ...] | None, ...]

COST = 0.15  # λ, nats for the whole network
DECAY = 5e-4  # of the weights, as the source trains; a gate that is right of every image stays finite
SUREST = 16.0  # log-odds; float32 tells no confidences beyond apart
FLATTEST = 0.1  # slope of a curve; flatter ones would make offsets of nothing
WEAK = 100.0  # variance of the prior of a curve's two numbers; what one cut tells apart stays finite
WIDEST = 4.0  # variance of classes; one that is far off leaves the others shrunk


def gates(logits: Floats, labels: Ints, spent: Sequence[float], cost: float = COST) -> GateNumbers:
    """The gates of all exits but the last, which has none.

    Each gate minimizes the mean over images of its binary cross-entropy, in which an image that should
    leave counts (stays / leaves) times, both counted over all gates, plus the decay of its weights. That
    is convex, so the minimum is the only one.

    Args:
        logits: [N, E, C]. Rows with a logit that is not finite are left out; where none is left nothing
            is learned, and a gate is one half for every image.
        labels: [N].
        spent: [E], of `shares`.
        cost: λ, in nats for the whole network.

    Example:
        >>> import numpy as np
        >>> sure, torn = [4.0, 0.0], [0.1, 0.0]
        >>> logits = np.array([[sure, sure], [torn, sure]] * 50)
        >>> first, last = gates(logits, np.zeros(100, int), (0.3, 1.0))
        >>> len(first), last
        (5, None)
    """
    finite = np.isfinite(logits).all(axis=(1, 2))
    rows, truth = np.asarray(logits[finite], np.float64), labels[finite]
    early = logits.shape[1] - 1
    if not len(rows) or not early:
        return (*((0.0,) * (scoring.STATISTICS + 1),) * early, None)
    goal = best_exits(rows, truth, spent, cost)[:, None] <= np.arange(early)
    ones = int(goal.sum())
    weight = np.where(goal, (goal.size - ones) / ones if 0 < ones < goal.size else 1.0, 1.0)
    return (*(_gate(rows[:, k], goal[:, k], weight[:, k]) for k in range(early)), None)


def shares(costs: Costs) -> tuple[float, ...]:
    """What leaving at each exit costs, all heads before it run: 1 at the last exit."""
    spent = costs.leaving(range(len(costs.exits)))
    return tuple(each / spent[-1] for each in spent)


def best_exits(logits: Floats, labels: Ints, spent: Sequence[float], cost: float = COST) -> Ints:
    """The exit of least cross-entropy + cost · spent, the first of a tie; counted from 0. logits: [N, E,
    C], all finite; labels: [N]; spent: [E], of `shares`; cost: λ.

    Example:
        >>> import numpy as np
        >>> logits = np.array([[[2.0, 0.0], [3.0, 0.0]], [[0.0, 2.0], [3.0, 0.0]]])
        >>> best_exits(logits, np.array([0, 0]), (0.2, 1.0)).tolist()
        [0, 1]
    """
    rows = np.arange(len(labels))
    entropies = -log_softmax(np.asarray(logits, np.float64), axis=2)[rows, :, labels]
    return np.asarray(np.argmin(entropies + cost * np.asarray(spent), axis=1))


def _gate(logits: Floats, goal: Bools, weight: Floats) -> tuple[float, ...]:
    """logits: [N, C].  goal: [N], whether to leave.  weight: [N]."""
    seen = np.column_stack([scoring.statistics(logits), np.ones(len(logits))])
    sign = np.where(goal, 1.0, -1.0)

    def loss(gate: Floats) -> tuple[float, Floats]:
        distance = sign * (seen @ gate)
        value = (weight * np.logaddexp(0, -distance)).mean() + DECAY / 2 * gate @ gate
        slope = -(weight * sign * expit(-distance)) @ seen / len(seen) + DECAY * gate
        return float(value), slope

    start = np.zeros(seen.shape[1])
    fit = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-7})
    return tuple(round(float(number), 6) for number in fit.x)


def offsets(logits: Floats, labels: Ints) -> GateNumbers:
    """The offsets of all exits but the last, which has none: one a class, 0 for the common threshold,
    more where less confidence is enough.

    Leaving loses where the full network is right and the exit is wrong. logits: [N, E, C], of which rows
    with a logit that is not finite are left out; labels: [N].

    Example:
        >>> import numpy as np
        >>> sure, torn, other = [2.0, 0.0], [1.0, 0.0], [0.0, 1.5]
        >>> rows = [[sure, sure], [torn, sure], [other, other], [other, sure]]
        >>> first, last = offsets(np.array(rows * 30), np.array([0, 0, 1, 0] * 30))
        >>> first[0] > 0 > first[1], last
        (True, None)
    """
    finite = np.isfinite(logits).all(axis=(1, 2))
    rows, truth = np.asarray(logits[finite], np.float64), labels[finite]
    answers = scoring.answers(rows)
    right = answers == truth[:, None]
    safe = right | ~right[:, -1:]
    early, classes = logits.shape[1] - 1, logits.shape[2]
    by_exit = (_offsets(_log_odds(rows[:, k]), answers[:, k], safe[:, k], classes) for k in range(early))
    return (*by_exit, None)


LEARNERS: Mapping[str, Callable[[Floats, Ints, Costs], GateNumbers]] = {
    "gate": lambda logits, labels, costs: gates(logits, labels, shares(costs)),
    "classwise": lambda logits, labels, _: offsets(logits, labels),
}
"""How each learned score is learned. Not in `SCORES`: its file ships in bundles, which learn nothing
and imports the standard library alone; learning needs scipy."""


def _log_odds(logits: Floats) -> Floats:
    """Of the largest probability against all others. [N, C] → [N]."""
    largest = logits.argmax(axis=1)[:, None]
    others = logits.copy()
    np.put_along_axis(others, largest, -np.inf, axis=1)
    odds = np.take_along_axis(logits, largest, axis=1)[:, 0] - logsumexp(others, axis=1)
    return np.asarray(np.minimum(odds, SUREST))


def _offsets(odds: Floats, answers: Ints, safe: Bools, classes: int) -> tuple[float, ...]:
    """odds: [N], log-odds of confidence.  answers: [N] classes.  safe: [N], whether nothing is lost.

    The variance of classes is one by moments: what their squared residuals under the common curve have
    beyond what chance gives them, and beyond a standard error of that, as a few rare losses go far.
    """
    none = (0.0,) * classes
    if safe.all() or not safe.any():
        return none
    constant, slope, _ = _curve(odds, answers, safe, classes, 0.0)
    chance = expit(constant + slope * odds)
    residual = np.bincount(answers, safe - chance, classes)
    each = chance * (1 - chance)
    information = np.bincount(answers, each, classes)
    spread = 2 * information @ information + each @ (1 - 6 * each)
    error = math.sqrt(max(spread, 0.0))  # a class of one even row has none, up to rounding
    variance = (residual @ residual - information.sum() - error) / (information @ information)
    if not variance > 0:
        return none
    _, slope, own = _curve(odds, answers, safe, classes, math.sqrt(min(variance, WIDEST)))
    clipped = np.clip(own / slope, -scoring.FARTHEST, scoring.FARTHEST)
    return tuple(round(float(number), 6) + 0.0 for number in clipped)


def _curve(
    odds: Floats, answers: Ints, safe: Bools, classes: int, spread: float
) -> tuple[float, float, Floats]:
    """Constant, slope and offsets [C] of the likeliest curve, with normal priors: of offsets with the
    deviation `spread`. What is minimized is convex."""
    sign = np.where(safe, 1.0, -1.0)

    def loss(numbers: Floats) -> tuple[float, Floats]:
        pair, units = numbers[:2], numbers[2:]
        distance = sign * (pair[0] + pair[1] * odds + spread * units[answers])
        pull = -sign * expit(-distance)
        value = np.logaddexp(0, -distance).sum() + pair @ pair / (2 * WEAK) + units @ units / 2
        ends = np.array([pull.sum(), pull @ odds]) + pair / WEAK
        return float(value), np.append(ends, spread * np.bincount(answers, pull, classes) + units)

    start = np.append([0.0, 1.0], np.zeros(classes))
    free = (None, None)
    bounds = [free, (FLATTEST, None), *[free] * classes]
    options = {"ftol": 1e-12}
    numbers = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return float(numbers[0]), float(numbers[1]), spread * numbers[2:]
