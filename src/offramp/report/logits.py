"""What a trial's logits come to: what is right on which image, confidence, agreement, thresholds."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.analysis.tradeoff import NetAnswers
from offramp.files import read_cached, user_cache, write_cached
from offramp.hashing import digest
from offramp.labels import alike, several
from offramp.metrics import METRICS, ByImage, Metric, hits
from offramp.policy import scoring
from offramp.policy.quality import Curve, aurc, auroc, calibration_error, confidence_bins, sweep

Floats = NDArray[np.float64]
# Confidences at which an input leaves: all at once, closer and closer to certainty, never.
THRESHOLDS = np.array(
    [0.0, *np.arange(0.2, 0.9, 0.05), *np.arange(0.9, 0.99, 0.02), 0.99, 0.995, 0.999, 0.9999, np.inf]
)


@dataclass(frozen=True, eq=False)
class LogitSummary:
    """Of one split of one trial with E exits."""

    # ece, auroc, aurc: by exit, of the confidence (largest softmax probability; of several labels that
    # of the least sure one) against right and wrong; None where it is not defined, as the first for
    # several labels
    ece: tuple[float | None, ...]
    auroc: tuple[float | None, ...]
    aurc: tuple[float, ...]
    # [E, BINS, 3], for equal-width bins of confidence the number of images, the sum of confidences, and
    # how many are right
    bins: Floats
    agreement: Floats  # [E, E], share of images on which two exits give one answer
    overthought: tuple[float, ...]  # by exit, share of images that are right there and wrong at the last
    lost: float  # share of images right at any earlier exit and wrong at the last
    curve: Curve  # of THRESHOLDS, one threshold for all exits
    answers: NetAnswers  # image by image
    on_images: dict[ByImage, np.ndarray]  # values on each image, [N, E], by what gives them
    common: float  # share of the most common class, or combination of labels


def remembered(metric: Metric, logits: np.ndarray, labels: np.ndarray) -> list[float]:
    """A metric of logits [N, E, C] by exit. What it came to for these very logits is kept in the user's
    cache folder, so that it is worked out once."""
    # The code is a part of the key: a metric that was corrected must not find what it said before.
    code = metric.code or inspect.getsource(inspect.getmodule(metric.of) or metric.of)
    parts = [hashlib.sha256(np.ascontiguousarray(a).data).hexdigest() for a in (logits, labels)]
    key = digest([code, metric.of.__qualname__, str(logits.dtype), list(logits.shape), *parts])
    path = user_cache() / "metrics" / f"{key}.json"
    if (document := read_cached(path)) is not None:
        return [float(v) for v in document["values"]]
    values = [float(v) for v in metric(logits, labels)]
    write_cached(path, {"values": values})
    return values


def other_accuracy(logits: np.ndarray, labels: np.ndarray, recorded: float) -> str | None:
    """The accuracy of logits [N, C], in words, where it cannot be what is said. Rounding to float16
    keeps the order of two logits or makes them equal, so only an image with a tie may go either way."""
    if not len(labels):
        return None
    if several(labels):  # rounding to float16 moves no label over a half
        least = most = float(hits(logits[:, None], labels).mean())
        return None if abs(least - recorded) <= 0.5 / len(labels) else f"{most:.4f}"
    clean = np.where(np.isnan(logits), -np.inf, logits)
    best = clean == clean.max(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    valid = (labels >= 0) & (labels < clean.shape[1])
    right = best[rows, np.where(valid, labels, 0)] & valid
    least, most = float((right & (best.sum(axis=1) == 1)).mean()), float(right.mean())
    if least - 0.5 / len(labels) <= recorded <= most + 0.5 / len(labels):
        return None
    return f"{most:.4f}" if least == most else f"{least:.4f} to {most:.4f}"


def summarized(
    logits: np.ndarray, labels: np.ndarray, macs: Sequence[int], data: str = ""
) -> LogitSummary:
    """What logits [N, E, C] of one split come to. labels: [N], or [N, C]; macs: of an image that leaves
    at each exit, [E]; data: a key of the images."""
    sets = several(labels)
    sure = np.asarray(scoring.scores(scoring.usual(sets), logits))
    answers = np.asarray(scoring.answers(logits, sets))
    right = alike(answers, labels)
    exits = range(logits.shape[1])
    last = ~right[:, -1]
    early = right[:, :-1].any(axis=1)
    clean = np.where(np.isfinite(sure), sure, np.nan)
    chances = np.full_like(clean, np.nan) if sets else clean  # the least label's is none of being right
    return LogitSummary(
        ece=tuple(calibration_error(chances[:, k], right[:, k]) for k in exits),
        auroc=tuple(auroc(sure[:, k], right[:, k]) for k in exits),
        aurc=tuple(aurc(clean[:, k], right[:, k]) for k in exits),
        bins=np.stack([confidence_bins(chances[:, k], right[:, k]).T for k in exits]),
        agreement=np.stack([alike(answers, answers[:, [k]]).mean(axis=0) for k in exits], axis=1),
        overthought=tuple(float((right[:, k] & last).mean()) for k in exits),
        lost=float((early & last).mean()),
        curve=sweep(sure, right, macs, THRESHOLDS),
        answers=NetAnswers(sure, right, tuple(map(float, macs)), data),
        on_images={
            m.on_images: m.on_images(logits, labels)
            for m in METRICS.values()
            if m.on_images is not None and m.suits(labels)
        },
        common=float(np.unique(labels, axis=0, return_counts=True)[1].max() / len(labels)),
    )
