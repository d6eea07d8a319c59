"""How sure an exit is, and where a row leaves: for numpy arrays and torch tensors alike.

This file imports nothing but the standard library, and a bundle ships it as it is. It uses only
functions that numpy and torch both have under the same name, so each row is treated alike in
calibration, in the predictor and in the bundle.

`SCORES` has every score; another one is a function and a line there. Scores grow with certainty,
whatever their name.

A row leaves at the first exit whose score reaches that exit's threshold (`>=`, so a tie leaves), and at
the last exit otherwise. A threshold of None never lets a row leave. An exit with a NaN logit, or an
infinite largest logit, is sure of nothing: its score is minus infinity, and for patience and agreement
0; a run of equal answers ends there. Only `fixed` does not look at the logits. With one class an exit is
always sure. A score that reads what was learned is sure of nothing where nothing was.

Where an image has several labels, or none, logits are of labels, and a score is of all of them: that a
score is such a one (`several`) says that logits are so meant. An exit then answers the labels whose
probability, a sigmoid, is above a half, and one with a logit that is not finite is sure of nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Array = Any  # of numpy or torch
Past = tuple[Array, ...] | None  # [B, ...] each: what a score with a history knows of the exits before
Gate = Sequence[float] | None  # of an exit: the numbers that a learned score reads

NEVER = float("-inf")
STATISTICS = 4
GATE_SIZE = STATISTICS + 1  # weights of the statistics, and a constant
NEAR = 1e-4  # far above the rounding of a softmax in float32
FEW = 200  # logits; of more, a loop takes longer than kernels


def answers(logits: Array, several: bool = False) -> Array:
    """The class of the largest logit; the first one of a tie, NaN never. [..., C] → [...] int. Of
    several labels: those that are answered, [..., C] bool."""
    xp = library(logits)
    if several:
        return logits > 0
    return xp.argmax(xp.where(xp.isnan(logits), NEVER, logits), axis=-1)


def probabilities(logits: Array, temperature: float = 1.0) -> Array:
    """Softmax of `logits / temperature`, in float32 at least; NaN where a row has no finite largest
    logit. [..., C] → [..., C]."""
    xp = library(logits)
    shifted, sure = _shifted(xp, logits, temperature)
    weights = xp.exp(shifted)
    return xp.where(sure, weights / xp.sum(weights, axis=-1, keepdims=True), float("nan"))


def label_probabilities(logits: Array, temperature: float = 1.0) -> Array:
    """Of several labels, the sigmoid of each `logits / temperature`, in float32 at least.
    [..., C] → [..., C]."""
    xp = library(logits)
    odds = _wide(xp, logits) / temperature
    small = xp.exp(-xp.abs(odds))  # so that nothing overflows
    return xp.where(odds < 0, small, 1.0) / (1 + small)


def certainty(logits: Array, temperature: float, several: bool) -> Array:
    """The probability of an answer, [..., C] → [...]: the largest of the softmax; of several labels that
    of the least sure one. NaN for logits of which none can be told."""
    if not several:
        return library(logits).amax(probabilities(logits, temperature), axis=-1)
    xp, sure, far = _distances(logits, temperature)
    return xp.where(sure, 1 / (1 + xp.exp(-xp.amin(far, axis=-1))), float("nan"))


def certainties(logits: Array, temperatures: Sequence[float], several: bool) -> Any:
    """`certainty` of each exit, [N, E, C] → [N, E]. temperatures: one an exit."""
    each = [certainty(logits[:, at], warmth, several) for at, warmth in enumerate(temperatures)]
    return library(logits).stack(each, 1)


def usual(several: bool) -> str:
    """The score by which images leave where nobody says."""
    return "least-label" if several else "confidence"


def score(
    name: str, logits: Array, temperature: float = 1.0, past: Past = None, gate: Gate = None
) -> tuple[Array, Past]:
    """How sure one exit is, [...], and what the next exit needs to know. logits: [..., C]; past: what
    the exit before returned, for the same rows; gate: what this one has learned. ValueError for no
    score."""
    if name not in SCORES:
        raise ValueError(f"no score '{name}'; there are {', '.join(SCORES)}")
    return SCORES[name].rate(logits, temperature, past, gate)


def scores(
    name: str,
    logits: Array,
    temperatures: Sequence[float] | None = None,
    gates: Sequence[Gate] | None = None,
) -> Array:
    """The score of every exit. logits: [N, E, C]; temperatures, gates: [E]; returns [N, E]."""
    past: Past = None
    columns = []
    for exit in range(logits.shape[1]):
        warmth = 1.0 if temperatures is None else temperatures[exit]
        gate = None if gates is None else gates[exit]
        now, past = score(name, logits[:, exit], warmth, past, gate)
        columns.append(now)
    return library(logits).stack(columns, axis=-1)


def answer_logits(name: str, logits: Array, past: Past) -> Array:
    """The logits by which an early exit answers: its own, but for a score by which several exits answer
    together. logits: [..., C]; past: what `score` returned for this exit."""
    return SCORES[name].says(logits, past)


def all_answer_logits(name: str, logits: Array, final: bool = True) -> Array:
    """The logits by which each exit answers, all exits before it run: [N, E, C] → [N, E, C]. final:
    whether the last is the network's final exit, which answers by its own logits in any case."""
    if not SCORES[name].together:
        return logits
    past: Past = None
    by_exit = []
    for exit in range(logits.shape[1]):
        _, past = score(name, logits[:, exit], 1.0, past)
        by_exit.append(answer_logits(name, logits[:, exit], past))
    if final:
        by_exit[-1] = logits[:, -1]
    return library(logits).stack(by_exit, axis=1)


def carried(logits: Array, before: Array | None, share: float) -> Array:
    """An exit's answer, where each adds a share of the answer before to its head's logits (boosting).
    logits, before: [..., C]; before: None at the first exit."""
    return logits if before is None or not share else logits + share * before


def all_carried(logits: Array, share: float) -> Array:
    """`carried` of every exit. logits: [N, E, C]; returns [N, E, C]."""
    by_exit: list[Array] = []
    for exit in range(logits.shape[1]):
        by_exit.append(carried(logits[:, exit], by_exit[-1] if by_exit else None, share))
    return library(logits).stack(by_exit, axis=1) if share else logits


def leaves(
    name: str,
    logits: Array,
    thresholds: Sequence[float | None],
    temperatures: Sequence[float] | None = None,
    gates: Sequence[Gate] | None = None,
) -> Array:
    """Where each row leaves, [N] int counted from 0. logits: [N, E, C]; thresholds, of which the last is
    not read, temperatures and gates: one an exit."""
    xp = library(logits)
    sure = scores(name, logits, temperatures, gates)
    last = logits.shape[1] - 1
    place = xp.zeros_like(answers(logits[:, last])) + last
    for exit in reversed(range(last)):
        threshold = thresholds[exit]
        if threshold is not None:
            place = xp.where(sure[:, exit] >= threshold, exit, place)
    return place


def statistics(logits: Array) -> Array:
    """What a gate looks at, [..., C] → [..., 4]: confidence, entropy, margin, and the entropy of the
    squared probabilities (half the temperature). Minus infinity without a finite largest logit."""
    columns = (
        _confidence(logits, 1.0, None, None),
        _entropy(logits, 1.0, None, None),
        _margin(logits, 1.0, None, None),
        _entropy(logits, 0.5, None, None),
    )
    return library(logits).stack([each for each, _ in columns], axis=-1)


def row_confidence(row: list[float], temperature: float) -> float:
    """Of one row of logits, up to rounding, without a kernel. NaN where a logit is NaN or the largest is
    infinite."""
    most, total = max(row), 0.0
    for each in row:
        total += math.exp((each - most) / temperature)
    return 1 / total


def row_answers(logits: Array, temperature: float) -> list[tuple[int, float]] | None:
    """Of each row [n, C] on the host the class and how sure, as `answers` and `certainty` up to
    rounding, without a kernel. None where they have to be computed in full."""
    if logits.shape[0] * logits.shape[1] > FEW:
        return None
    each = [(row.index(max(row)), row_confidence(row, temperature)) for row in logits.tolist()]
    return each if all(sure == sure for _, sure in each) else None


def rows_leave(name: str, logits: Array, temperature: float, threshold: float) -> list[bool] | None:
    """Which rows of logits [n, C] on the host leave, without a kernel, which takes longer than some
    stages. None where that is not certain: other scores, many values, near the threshold, and NaN."""
    of_row = SCORES[name].of_row
    if of_row is None or logits.shape[0] * logits.shape[1] > FEW:
        return None
    leaves = []
    for row in logits.tolist():
        sure = of_row(row, temperature)
        if not abs(sure - threshold) > NEAR:
            return None
        leaves.append(sure > threshold)
    return leaves


def library(array: Array) -> Any:
    """numpy or torch, whichever the array is of; neither is imported here."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def _shifted(xp: Any, logits: Array, temperature: float) -> tuple[Array, Array]:
    """`logits / temperature` minus the row's largest, [..., C], and whether that is finite, [..., 1]:
    rows where it is not are zeros, so that nothing warns of them."""
    logits = _wide(xp, logits)
    largest = xp.amax(logits, axis=-1, keepdims=True)
    sure = xp.isfinite(largest)
    clean = xp.where(sure, logits, 0.0)
    return (clean - xp.where(sure, largest, 0.0)) / temperature, sure


def _wide(xp: Any, logits: Array) -> Array:
    return xp.asarray(logits, dtype=xp.float32) if logits.dtype.itemsize < 4 else logits


def _softmax(logits: Array, temperature: float) -> tuple[Any, Array, Array, Array, Array]:
    """numpy or torch; which rows have a finite largest logit, [...]; of `_shifted`, z [..., C]; its
    exponentials w [..., C]; their sum [...]."""
    xp = library(logits)
    shifted, sure = _shifted(xp, logits, temperature)
    weights = xp.exp(shifted)
    return xp, sure[..., 0], shifted, weights, xp.sum(weights, axis=-1)


def _confidence(logits: Array, temperature: float, _: Past, __: Gate) -> tuple[Array, Past]:
    xp, sure, _z, _w, total = _softmax(logits, temperature)
    return xp.where(sure, 1 / total, NEVER), None


def _margin(logits: Array, temperature: float, _: Past, __: Gate) -> tuple[Array, Past]:
    xp, sure, shifted, _w, total = _softmax(logits, temperature)
    tied = xp.sum(shifted == 0, axis=-1) > 1
    second = xp.where(tied, 0.0, xp.amax(xp.where(shifted == 0, NEVER, shifted), axis=-1))
    return xp.where(sure, (1 - xp.exp(second)) / total, NEVER), None


def _entropy(logits: Array, temperature: float, _: Past, __: Gate) -> tuple[Array, Past]:
    xp, sure, shifted, weights, total = _softmax(logits, temperature)
    classes = shifted.shape[-1]
    if classes < 2:
        return xp.where(sure, xp.zeros_like(total) + 1, NEVER), None
    # H = log Σw - Σ w·z / Σw; a weight of 0 may go with z = -inf, and adds nothing.
    drawn = xp.sum(weights * xp.where(weights > 0, shifted, 0.0), axis=-1) / total
    most = xp.log(xp.zeros_like(total) + classes)
    order = 1 - (xp.log(total) - drawn) / most
    order = xp.where(order > 0, order, 0.0)  # rounding may leave an even guess a little below
    return xp.where(sure, order, NEVER), None


def _patience(logits: Array, _: float, past: Past, __: Gate) -> tuple[Array, Past]:
    xp = library(logits)
    answer = xp.where(xp.isfinite(xp.amax(logits, axis=-1)), answers(logits), -1)
    run = xp.where(answer < 0, 0, 1)
    if past is not None:
        run = xp.where((answer == past[0]) & (answer >= 0), past[1] + 1, run)
    return run, (answer, run)


def _agreement(logits: Array, _: float, past: Past, __: Gate) -> tuple[Array, Past]:
    """past: how many exits so far gave each class as their answer, [..., C]."""
    xp = library(logits)
    answer = xp.where(xp.isfinite(xp.amax(logits, axis=-1)), answers(logits), -1)
    numbers = xp.cumsum(xp.ones_like(logits, dtype=answer.dtype), axis=-1) - 1
    mine = numbers == answer[..., None]
    votes = xp.where(mine, 1, 0) + (0 if past is None else past[0])
    return xp.sum(xp.where(mine, votes, 0), axis=-1), (votes,)


def _ensemble(logits: Array, temperature: float, past: Past, _: Gate) -> tuple[Array, Past]:
    """past: sums of log-probabilities [..., C] of the exits so far that were sure of anything, and how
    many they were [...]."""
    xp, sure, shifted, _w, total = _softmax(logits, 1.0)
    logs = xp.where(sure[..., None], shifted - xp.log(total)[..., None], 0.0)
    count = xp.where(sure, xp.zeros_like(total) + 1, 0.0)
    now = (logs, count) if past is None else (past[0] + logs, past[1] + count)
    sure_together, _ = _confidence(_mean(logits, now), temperature, None, None)
    return xp.where(sure, sure_together, NEVER), now


def _mean(logits: Array, past: Past) -> Array:
    """Of the exits' log-probabilities so far: the logits of their geometric mean."""
    assert past is not None
    xp = library(logits)
    return past[0] / xp.where(past[1] > 0, past[1], 1.0)[..., None]


def _own(logits: Array, _: Past) -> Array:
    return logits


def _fixed(logits: Array, _: float, __: Past, ___: Gate) -> tuple[Array, Past]:
    return library(logits).zeros_like(logits[..., 0]), None


def _gate(logits: Array, _: float, __: Past, gate: Gate) -> tuple[Array, Past]:
    """gate: a weight for each of `statistics`, then a constant."""
    xp = library(logits)
    seen = statistics(logits)
    sure = xp.isfinite(seen[..., 0])
    if gate is None:
        return xp.zeros_like(seen[..., 0]) + NEVER, None
    total = gate[STATISTICS] + xp.zeros_like(seen[..., 0])
    for at in range(STATISTICS):
        total = total + gate[at] * xp.where(sure, seen[..., at], 0.0)
    return xp.where(sure, label_probabilities(total), NEVER), None


def _distances(logits: Array, temperature: float) -> tuple[Any, Array, Array]:
    """numpy or torch; which rows are finite, [...]; how far the log-odds of labels are from 0,
    [..., C]."""
    xp = library(logits)
    odds = _wide(xp, logits)
    sure = xp.sum(xp.isfinite(odds), axis=-1) == odds.shape[-1]
    return xp, sure, xp.abs(xp.where(sure[..., None], odds, 0.0)) / temperature


def _least_label(logits: Array, temperature: float, _: Past, __: Gate) -> tuple[Array, Past]:
    xp, sure = library(logits), certainty(logits, temperature, several=True)
    return xp.where(xp.isnan(sure), NEVER, sure), None


def _mean_label(logits: Array, temperature: float, _: Past, __: Gate) -> tuple[Array, Past]:
    xp, sure, far = _distances(logits, temperature)
    return xp.where(sure, xp.sum(1 / (1 + xp.exp(-far)), axis=-1) / far.shape[-1], NEVER), None


def _label_entropy(logits: Array, temperature: float, _: Past, __: Gate) -> tuple[Array, Past]:
    xp, sure, far = _distances(logits, temperature)
    small = xp.exp(-far)
    entropy = xp.sum(xp.log1p(small) + far * small / (1 + small), axis=-1) / far.shape[-1]
    order = 1 - entropy / math.log(2)
    return xp.where(sure, xp.where(order > 0, order, 0.0), NEVER), None


def _row_margin(row: list[float], temperature: float) -> float:
    if len(row) < 2:
        return math.nan
    most, second = max(row), sorted(row)[-2]
    return (1 - math.exp((second - most) / temperature)) * row_confidence(row, temperature)


def steepness(gate: Gate) -> float:
    """How much more than what it looks at a score may move, at most, by what its exit has learned: a
    quarter of the sum of its weights, as the slope of a sigmoid is a quarter at most."""
    return 1.0 if gate is None else max(1.0, sum(map(abs, gate[:STATISTICS])) / 4)


@dataclass(frozen=True)
class Score:
    """A way of telling how sure an exit is."""

    rate: Callable[[Array, float, Past, Gate], tuple[Array, Past]]  # what `score` does
    low: float = 0.0  # the lowest threshold; minus infinity where there is none
    high: float = 1.0  # the highest; the same as `low` where the score is the same for every input
    # whether it reads the answers of the exits before, whose heads are then run too
    history: bool = False
    counts: bool = False  # whether it counts exits, in whole numbers, so that it is at most n at the nth
    says: Callable[[Array, Past], Array] = _own  # what `answer_logits` does
    learned: bool = False  # whether it reads what each exit has learned: a gate
    several: bool = False  # whether it is of images with several labels each
    # for speed, the score of one row [C] without a kernel, up to rounding and NaN where it cannot tell;
    # None has it computed in full
    of_row: Callable[[list[float], float], float] | None = None

    @property
    def together(self) -> bool:
        """Whether exits answer by what several of them say."""
        return self.says is not _own

    @property
    def graded(self) -> bool:
        """Whether a threshold may lie anywhere in the range, so that rounding may decide at it."""
        return not self.counts and self.low < self.high


SCORES = {
    "confidence": Score(_confidence, of_row=row_confidence),
    "entropy": Score(_entropy),
    "margin": Score(_margin, of_row=_row_margin),
    "patience": Score(_patience, low=1.0, high=float("inf"), history=True, counts=True),
    "agreement": Score(_agreement, low=1.0, high=float("inf"), history=True, counts=True),
    "ensemble": Score(_ensemble, history=True, says=_mean),
    "gate": Score(_gate, learned=True),
    "fixed": Score(_fixed, high=0.0),
    "least-label": Score(_least_label, low=0.5, several=True),
    "mean-label": Score(_mean_label, low=0.5, several=True),
    "label-entropy": Score(_label_entropy, several=True),
}
