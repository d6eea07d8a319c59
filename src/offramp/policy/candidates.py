"""The policies that calibration may choose from, found and ordered on the validation split alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from offramp.policy import losses, scoring, solve, temperature
from offramp.policy.costs import Costs
from offramp.policy.policy import Policy, ScoreName

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Loss = Literal["wrong", "harm", "disagreement"]
POINTS = 200
RUN_UP = 10


@dataclass(frozen=True, eq=False)
class Rows:
    """A split: logits [N, E, C] of every exit, and labels [N]."""

    logits: Floats
    labels: Ints


@dataclass(frozen=True)
class Search:
    """How candidates are made: the score; one threshold for all exits or one per exit; whether each
    exit gets a temperature."""

    score: ScoreName = "confidence"
    shared: bool = False
    temperature: bool = False


def loss_of(kind: Loss, answers: Ints, labels: Ints) -> Floats:
    """[N, E]: what leaving at each exit loses. Disagreement does not look at the labels."""
    if kind == "disagreement":
        return losses.disagreement(answers)
    return losses.harm(answers, labels) if kind == "harm" else losses.wrong(answers, labels)


def candidates(
    validation: Rows, exits: tuple[int, ...], costs: Costs, search: Search, kind: Loss
) -> tuple[Policy, ...]:
    """Policies from the dearest to the cheapest by their mean MACs on validation. The first is the
    full network, and all others are cheaper than it."""
    logits = validation.logits
    warmth = temperature.fit(logits, validation.labels) if search.temperature else None
    full: tuple[float | None, ...] = (None,) * len(exits)
    early = _settings(validation, warmth, costs, search, kind)
    policies = [Policy(search.score, exits, thresholds, warmth) for thresholds in early]
    spent = {policy: _mean_macs(policy, logits, costs) for policy in dict.fromkeys(policies)}
    cheaper = [policy for policy in spent if spent[policy] < costs.full]
    cheaper.sort(key=lambda policy: -spent[policy])  # stable: equal costs keep their order
    return (Policy(search.score, exits, full, warmth), *cheaper)


def _settings(
    validation: Rows,
    warmth: tuple[float, ...] | None,
    costs: Costs,
    search: Search,
    kind: Loss,
) -> list[tuple[float | None, ...]]:
    """Thresholds worth a look, safest first where they have an order of their own."""
    last = validation.logits.shape[1] - 1
    if search.score == "fixed":
        places = reversed(range(last))
        return [tuple(0.0 if i == at else None for i in range(last + 1)) for at in places]
    if search.score == "patience":
        return [(*(float(k),) * last, None) for k in range(last, 0, -1)]
    scores = scoring.scores(search.score, validation.logits, warmth)
    if search.shared:
        cuts = solve.cut_points(scores[:, :last].reshape(-1))[::-1]
        most = min(len(cuts), POINTS)
        some = np.linspace(0, len(cuts) - 1, most).round().astype(int)
        return [(*(float(cuts[i]),) * last, None) for i in some]
    lost = loss_of(kind, scoring.answers(validation.logits), validation.labels)
    points = [point.thresholds for point in solve.frontier(scores, lost, costs, POINTS)]
    first = next((setting for setting in points if any(t is not None for t in setting)), None)
    return [*(_run_up(first, scores) if first else ()), *points]


def _run_up(thresholds: tuple[float | None, ...], scores: Floats) -> list[tuple[float | None, ...]]:
    """Policies between the full network and the first point of a frontier, safest first: fewer and
    fewer of the rows that leave there. The first point is the cheapest that loses nothing on
    validation; a short calibration split may certify a safer one only."""
    found = []
    for part in np.linspace(1, 0, RUN_UP, endpoint=False):
        raised: list[float | None] = []
        for exit, threshold in enumerate(thresholds):
            if threshold is not None:
                cuts = solve.cut_points(scores[:, exit])
                above = cuts[cuts >= threshold]
                threshold = float(above[round(part * (len(above) - 1))]) if len(above) else threshold
            raised.append(threshold)
        found.append(tuple(raised))
    return found


def _mean_macs(policy: Policy, logits: Floats, costs: Costs) -> float:
    return float(np.asarray(policy.macs(costs))[policy.leaves(logits)].mean())
