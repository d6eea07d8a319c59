"""Gates, which exits learn on validation for the score `gate`.

A gate learns from an exit's own answer whether an image should leave there, after JEI-DNN (Regol et
al., arXiv 2310.09163): the best exit of an image is the one of least cross-entropy + λ · cost, and the
gate of an exit learns whether the best exit is this one or an earlier one, from four statistics of its
answer. A gate is a number from 0 to 1; thresholds on it are then solved as on any other score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax

from offramp.policy import scoring
from offramp.policy.costs import Costs

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]
GateNumbers = tuple[tuple[float, ...] | None, ...]

COST = 0.15  # λ, nats for the whole network
DECAY = 5e-4  # of the weights, as the source trains; a gate that is right of every image stays finite


def gates(logits: Floats, labels: Ints, spent: Sequence[float], cost: float = COST) -> GateNumbers:
    """The gates of all exits but the last, which has none. logits: [N, E, C]; labels: [N]; spent: of
    `shares`.

    Each minimizes the mean over images of its binary cross-entropy, in which an image that should leave
    counts (stays / leaves) times, both counted over all gates, plus the decay of its weights: that is
    convex. Rows with a logit that is not finite are left out; without any, a gate is one half for
    all."""
    finite = np.isfinite(logits).all(axis=(1, 2))
    rows, truth = np.asarray(logits[finite], np.float64), labels[finite]
    early = logits.shape[1] - 1
    if not len(rows) or not early:
        return (*((0.0,) * (scoring.GATE_SIZE),) * early, None)
    goal = best_exits(rows, truth, spent, cost)[:, None] <= np.arange(early)
    ones = int(goal.sum())
    weight = np.where(goal, (goal.size - ones) / ones if 0 < ones < goal.size else 1.0, 1.0)
    return (*(_gate(rows[:, k], goal[:, k], weight[:, k]) for k in range(early)), None)


def shares(costs: Costs) -> tuple[float, ...]:
    """What leaving at each exit costs, all heads before it run: 1 at the last exit."""
    spent = costs.leaving(range(len(costs.exits)))
    return tuple(each / spent[-1] for each in spent)


def best_exits(logits: Floats, labels: Ints, spent: Sequence[float], cost: float = COST) -> Ints:
    """[N], from 0: the exit of least cross-entropy + cost · spent, the first of a tie. logits: [N, E,
    C], all finite; labels: [N]; spent: [E], of `shares`; cost: λ."""
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
