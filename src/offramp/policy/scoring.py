"""How sure an exit is, and where a row leaves: for numpy arrays and torch tensors alike.

This file imports nothing but the standard library, and a deployed bundle carries it as it is. It uses
only functions that numpy and torch both have under the same name, so each row is treated alike in
calibration, in the predictor and in the bundle.

Scores grow with certainty, whatever their name:

    confidence  the largest softmax probability, 0 to 1
    entropy     1 - H / log C, with H the entropy of the softmax: 0 for an even guess, 1 for a sure one
    margin      the largest softmax probability minus the second largest, 0 to 1
    patience    how many exits in a row, this one included, gave this answer, from 1
    fixed       0 at every exit

A row leaves at the first exit whose score reaches that exit's threshold (`>=`, so a tie leaves), and
at the last exit otherwise. A threshold of None never lets a row leave. An exit with a NaN logit, or an
infinite largest logit, is sure of nothing: its score is minus infinity, and for patience 0, a run of
equal answers ending there. Only `fixed` does not look at the logits. With one class an exit is always
sure.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

Array = Any  # of numpy or torch
Past = tuple[Array, Array] | None  # each row's last answer [B] and how often in a row it was given

SCORES = ("confidence", "entropy", "margin", "patience", "fixed")
NEVER = float("-inf")


def answers(logits: Array) -> Array:
    """The class of the largest logit; the first one of a tie, NaN never. [..., C] → [...] int."""
    xp = _module(logits)
    return xp.argmax(xp.where(xp.isnan(logits), NEVER, logits), axis=-1)


def probabilities(logits: Array, temperature: float = 1.0) -> Array:
    """Softmax of `logits / temperature`, in float32 at least; NaN where a row has no finite largest
    logit. [..., C] → [..., C]."""
    xp = _module(logits)
    shifted, sure = _shifted(xp, logits, temperature)
    weights = xp.exp(shifted)
    return xp.where(sure, weights / xp.sum(weights, axis=-1, keepdims=True), float("nan"))


def score(name: str, logits: Array, temperature: float = 1.0, past: Past = None) -> tuple[Array, Past]:
    """How sure one exit is, and what the next exit needs to know.

    logits: [..., C]; past: what the exit before returned, for the same rows; None at the first.
    Returns the scores [...] and the new past, which is None except for patience. Raises ValueError for
    an unknown name.
    """
    if name == "patience":
        return _patience(logits, past)
    xp = _module(logits)
    if name == "fixed":
        return xp.zeros_like(logits[..., 0]), None
    shifted, sure = _shifted(xp, logits, temperature)
    weights = xp.exp(shifted)
    total = xp.sum(weights, axis=-1)
    if name == "confidence":
        found = 1 / total
    elif name == "margin":
        found = (1 - xp.exp(_second(xp, shifted))) / total
    elif name == "entropy":
        found = _certainty(xp, shifted, weights, total)
    else:
        raise ValueError(f"no score '{name}'; there are {', '.join(SCORES)}")
    return xp.where(sure[..., 0], found, NEVER), None


def scores(name: str, logits: Array, temperatures: Sequence[float] | None = None) -> Array:
    """`score` of every exit. logits: [N, E, C]; temperatures: [E]; returns [N, E]."""
    past: Past = None
    found = []
    for exit in range(logits.shape[1]):
        warmth = 1.0 if temperatures is None else temperatures[exit]
        now, past = score(name, logits[:, exit], warmth, past)
        found.append(now)
    return _module(logits).stack(found, axis=-1)


def leaves(
    name: str,
    logits: Array,
    thresholds: Sequence[float | None],
    temperatures: Sequence[float] | None = None,
) -> Array:
    """Where each row leaves, counted from 0. logits: [N, E, C]; thresholds: [E], of which the last is
    not read; temperatures: [E]; returns [N] int."""
    xp = _module(logits)
    found = scores(name, logits, temperatures)
    last = logits.shape[1] - 1
    place = xp.zeros_like(answers(logits[:, last])) + last
    for exit in reversed(range(last)):
        threshold = thresholds[exit]
        if threshold is not None:
            place = xp.where(found[:, exit] >= threshold, exit, place)
    return place


def _module(array: Array) -> Any:
    """numpy or torch, whichever the array is of; neither is imported here."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def _shifted(xp: Any, logits: Array, temperature: float) -> tuple[Array, Array]:
    """`logits / temperature` minus the row's largest, [..., C], and whether that is finite, [..., 1]:
    rows where it is not are zeros, so that nothing warns of them."""
    if logits.dtype.itemsize < 4:
        logits = xp.asarray(logits, dtype=xp.float32)
    largest = xp.amax(logits, axis=-1, keepdims=True)
    sure = xp.isfinite(largest)
    clean = xp.where(sure, logits, 0.0)
    return (clean - xp.where(sure, largest, 0.0)) / temperature, sure


def _second(xp: Any, shifted: Array) -> Array:
    """The second largest of rows whose largest is 0; 0 as well in a tie."""
    tied = xp.sum(shifted == 0, axis=-1) > 1
    return xp.where(tied, 0.0, xp.amax(xp.where(shifted == 0, NEVER, shifted), axis=-1))


def _certainty(xp: Any, shifted: Array, weights: Array, total: Array) -> Array:
    classes = shifted.shape[-1]
    if classes < 2:
        return xp.zeros_like(total) + 1
    # H = log Σw - Σ w·z / Σw; a weight of 0 may go with z = -inf, and adds nothing.
    drawn = xp.sum(weights * xp.where(weights > 0, shifted, 0.0), axis=-1) / total
    most = xp.log(xp.zeros_like(total) + classes)
    found = 1 - (xp.log(total) - drawn) / most
    return xp.where(found > 0, found, 0.0)  # rounding may leave an even guess a little below


def _patience(logits: Array, past: Past) -> tuple[Array, Past]:
    xp = _module(logits)
    answer = xp.where(xp.isfinite(xp.amax(logits, axis=-1)), answers(logits), -1)
    run = xp.where(answer < 0, 0, 1)
    if past is not None:
        run = xp.where((answer == past[0]) & (answer >= 0), past[1] + 1, run)
    return run, (answer, run)
