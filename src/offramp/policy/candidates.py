"""The policies that calibration may choose from, found and ordered on the validation split alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from offramp.errors import OfframpError, nearest
from offramp.labels import alike, several
from offramp.policy import scoring, solve
from offramp.policy.costs import Costs
from offramp.policy.learned import GateNumbers, gates, shares
from offramp.policy.limits import LossKind
from offramp.policy.policy import Policy
from offramp.policy.solve import Thresholds

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
POINTS = 200
RUN_UP = 10
COLDEST, WARMEST = 0.05, 20.0  # bounds: a split that is all right or all wrong has no best temperature
SURELY = 2.0  # standard errors; with one, candidates that a short calibration split needs leave, too


@dataclass(frozen=True, eq=False)
class SplitLogits:
    """The answers of every exit on a split."""

    logits: Floats  # [N, E, C]
    labels: Ints  # [N]; or [N, C] of 0 and 1, of several labels an image
    noun: str = "image"  # what an example is called

    @property
    def several(self) -> bool:
        return several(self.labels)

    def answers(self, score: str = "") -> scoring.Array:
        """What each exit answers, [N, E] or [N, E, C]; by a score, with the exits before it."""
        logits = scoring.all_answer_logits(score, self.logits) if score else self.logits
        return scoring.answers(logits, self.several)

    def right(self, score: str = "") -> NDArray[np.bool_]:
        """Whether each exit is right, of several labels in all of them: [N, E]."""
        return np.asarray(alike(self.answers(score), self.labels))


@dataclass(frozen=True)
class Search:
    """How candidates are made. Raises OfframpError for choices that mean nothing or exclude each
    other."""

    score: str = "confidence"  # what decides whether an image leaves
    shared: bool = False  # one threshold for all exits, not one each
    temperature: bool = False  # whether each exit gets a temperature
    survivors: bool = False  # whether thresholds are set exit by exit, on the images that get there
    # for the score gate, those that the network learned; None learns them on validation
    gates: GateNumbers | None = None

    def __post_init__(self) -> None:
        if self.score not in scoring.SCORES:
            raise OfframpError(f"no score '{self.score}'{nearest(self.score, scoring.SCORES)}")
        choices = {
            "shared": self.shared,
            "survivors": self.survivors,
            "temperature": self.temperature,
        }
        flags = [name for name, on in choices.items() if on]
        if self.score == "fixed" and self.temperature:  # what answers say of themselves, no threshold
            flags.remove("temperature")
        if flags and not scoring.SCORES[self.score].graded:
            raise OfframpError(f"{flags[0]} means nothing for the score {self.score}; leave it out")
        if self.shared and self.survivors:
            raise OfframpError("shared and survivors exclude each other; leave one out")


BY_CONFIDENCE = Search()


def loss_of(kind: LossKind, answers: Ints, labels: Ints) -> Floats:
    """What leaving at each exit loses, [N, E] from 0 to 1. `harm`: the full network is right and the
    exit wrong; `disagreement`: they differ; `miss`: of labels that an image has, the share that is
    missed.

    answers: [N, E] classes, or [N, E, C] labels; the last exit is the full network. labels: [N] or [N,
    C]."""
    match kind:
        case "wrong":
            lost = ~alike(answers, labels)
        case "harm":
            right = alike(answers, labels)
            lost = right[:, -1:] & ~right
        case "disagreement":
            lost = ~alike(answers, answers[:, -1:])
        case "label" | "miss" | "label-harm" | "miss-harm":
            truth = labels[:, None] > 0
            wrong = answers != truth
            if kind in ("label-harm", "miss-harm"):
                wrong = wrong & ~wrong[:, -1:]
            if kind in ("label", "label-harm"):
                return np.asarray(wrong.mean(axis=2))
            return np.asarray((wrong & truth).sum(axis=2) / np.maximum(truth.sum(axis=2), 1))
        case _:
            assert_never(kind)
    return np.asarray(lost, dtype=np.float64)


def where_left(values: Floats, leaves: Ints) -> Floats:
    """The value of the exit that each row leaves at. values: [N, E]; leaves: [N]; returns [N]."""
    return np.asarray(np.take_along_axis(values, leaves[:, None], axis=1)[:, 0])


def candidates(
    validation: SplitLogits, costs: Costs, search: Search, kind: LossKind
) -> tuple[Policy, ...]:
    """Policies from the dearest to the cheapest by their mean MACs on validation.

    The first is the full network, and all others are cheaper than it. A walk along them ends at the
    first that fails. So that a useless one hides no good one behind it, what another surely beats in
    loss and cost on validation is left out: exits, before thresholds are sought, and then policies.
    """
    logits, exits = validation.logits, costs.exits
    answers = replace(validation, logits=scoring.all_answer_logits(search.score, logits))
    warmth = temperatures(answers) if search.temperature else None
    learned = _learned(validation, costs, search, kind)
    scores = np.array(scoring.scores(search.score, logits, warmth, learned), dtype=np.float64)
    lost = loss_of(kind, answers.answers(), validation.labels)
    early = range(len(exits) - 1)
    useless = np.flatnonzero(_beaten(lost[:, :-1], [costs.leaving([i])[0] for i in early])).tolist()
    scores[:, useless] = scoring.NEVER
    full: Thresholds = (None,) * len(exits)

    def policy(setting: Thresholds) -> Policy:
        some = [None if i in useless else threshold for i, threshold in enumerate(setting)]
        return Policy(search.score, exits, some, warmth, carry=costs.carry, gates=learned)

    settings = _settings(lost, scores, costs, search)
    leaves = {each: each.leaves(logits) for each in dict.fromkeys(map(policy, settings))}
    spent = {each: float(np.asarray(each.macs(costs))[left].mean()) for each, left in leaves.items()}
    cheaper = [each for each in spent if spent[each] < costs.full]
    cheaper.sort(key=lambda each: -spent[each])  # stable: equal costs keep their order
    if cheaper:
        losses = np.column_stack([where_left(lost, leaves[each]) for each in cheaper])
        beaten = _beaten(losses, [spent[each] for each in cheaper])
        cheaper = [each for each, out in zip(cheaper, beaten, strict=True) if not out]
    return (policy(full), *cheaper)


def _beaten(losses: Floats, spent: Sequence[float]) -> list[bool]:
    """Which columns another beats, by more than SURELY standard errors of the difference, row by row,
    while it spends less. losses: [N, P]; spent: [P]."""
    means, macs, beaten = losses.mean(axis=0), np.asarray(spent), list[bool]()
    if len(losses) < 2:
        return [False] * len(macs)
    for at in range(len(macs)):
        cheaper = np.flatnonzero(macs < macs[at])
        more = losses[:, at] - losses[:, cheaper[means[cheaper].argmin()]] if len(cheaper) else [0.0]
        error = np.std(more) / np.sqrt(len(losses) - 1)
        beaten.append(bool(np.mean(more) > SURELY * error))
    return beaten


def _learned(
    validation: SplitLogits, costs: Costs, search: Search, kind: LossKind
) -> tuple[tuple[float, ...] | None, ...] | None:
    """What exits learn for the score. Where no labels are to be read, the full network's answers stand
    for them."""
    if not scoring.SCORES[search.score].learned:
        return None
    if search.gates is not None:
        return search.gates
    final = scoring.answers(validation.logits[:, -1])
    labels = final if kind == "disagreement" else validation.labels
    return gates(validation.logits, labels, shares(costs))


def _settings(lost: Floats, scores: Floats, costs: Costs, search: Search) -> list[Thresholds]:
    """Thresholds worth a look, safest first where they have an order of their own. lost and scores: [N,
    E]."""
    last, score = lost.shape[1] - 1, scoring.SCORES[search.score]
    if score.counts:
        return [(*(float(k),) * last, None) for k in range(last, 0, -1)]
    if not score.graded:
        places = reversed(range(last))
        return [tuple(score.low if i == at else None for i in range(last + 1)) for at in places]
    if search.shared:
        shared = solve.cut_points(scores[:, :last].reshape(-1), score.low)[::-1]
        most = min(len(shared), POINTS)
        some = np.linspace(0, len(shared) - 1, most).round().astype(int)
        return [(*(float(shared[i]),) * last, None) for i in some]
    cuts = [solve.cut_points(scores[:, exit], score.low) for exit in range(last)]
    if search.survivors:
        return _exit_by_exit(scores, lost, cuts)
    points = [point.thresholds for point in solve.frontier(scores, lost, costs, POINTS, cuts)]
    first = next((setting for setting in points if any(t is not None for t in setting)), None)
    return [*(_run_up(first, cuts) if first else ()), *points]


def _exit_by_exit(scores: Floats, lost: Floats, cuts: Sequence[Floats]) -> list[Thresholds]:
    """For one share after another, from none up: at each exit the lowest threshold by which those who
    leave lose at most that share, of the rows that get there (after CalexNet, arXiv 2509.08318)."""
    most = float(lost[:, : len(cuts)].mean(axis=0).max(initial=0.0))
    settings = []
    for share in np.linspace(0, most, POINTS):
        inside = np.ones(len(scores), dtype=bool)
        setting: list[float | None] = []
        for exit, points in enumerate(cuts):
            here = np.flatnonzero(inside)
            order = here[np.argsort(-scores[here, exit], kind="stable")]
            leaving = np.searchsorted(-scores[order, exit], -points, side="right")
            spoiled = np.concatenate([[0.0], np.cumsum(lost[order, exit])])[leaving]
            fits = np.flatnonzero((leaving > 0) & (spoiled <= share * leaving))
            setting.append(float(points[fits[0]]) if len(fits) else None)
            if setting[-1] is not None:
                inside &= scores[:, exit] < setting[-1]
        settings.append((*setting, None))
    return settings


def _run_up(thresholds: Thresholds, cuts: Sequence[Floats]) -> list[Thresholds]:
    """Policies between the full network and the first point of a frontier, safest first, as a short
    calibration split may certify no other."""
    settings = []
    for part in np.linspace(1, 0, RUN_UP, endpoint=False):
        raised: list[float | None] = []
        for exit, threshold in enumerate(thresholds):
            if threshold is not None:
                above = cuts[exit][cuts[exit] >= threshold]
                threshold = float(above[round(part * (len(above) - 1))]) if len(above) else threshold
            raised.append(threshold)
        settings.append(tuple(raised))
    return settings


def temperatures(split: SplitLogits) -> tuple[float, ...]:
    """Of each exit the temperature, 0.05 to 20, of least cross-entropy (Guo et al., 2017), convex in
    1/T. Rows with a logit that is not finite are left out; 1 where none is left."""
    logits, labels = split.logits, split.labels
    return tuple(_temperature(logits[:, exit], labels) for exit in range(logits.shape[1]))


def _temperature(logits: Floats, labels: Ints) -> float:
    whole = np.isfinite(logits).all(axis=1)
    rows, truth = logits[whole].astype(np.float64), labels[whole]
    if not len(rows):
        return 1.0
    numbers = np.arange(len(rows))

    def loss(inverse: float) -> float:
        if several(labels):
            return float(np.logaddexp(0, np.where(truth > 0, -rows, rows) * inverse).mean())
        return float(-log_softmax(rows * inverse, axis=1)[numbers, truth].mean())

    fit = minimize_scalar(loss, bounds=(1 / WARMEST, 1 / COLDEST), method="bounded")
    return round(float(1 / fit.x), 6)
