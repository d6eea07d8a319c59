"""How good probabilities and scores are: calibration, ranking, thresholds, intervals of shares and of
differences, and the bounds between which every policy lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from offramp.labels import alike, several
from offramp.policy import scoring

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
BINS = 15


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its two-sided interval."""

    value: float
    low: float
    high: float


def share(hits: int, rows: int, level: float = 0.95) -> Interval:
    """`hits` of `rows`, at least one row, with the Clopper–Pearson interval. level: between 0 and 1."""
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, hits, rows - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, rows - hits)) if hits < rows else 1.0
    return Interval(hits / rows, low, high)


def difference(lost: int, gained: int, rows: int, level: float = 0.95) -> Interval:
    """The loss of accuracy, (lost - gained) / rows, of paired answers. Its interval is Wald's after one
    more answer of each kind, and so not empty where no answer differs (D. Bonett, R. Price. *Adjusted
    Wald confidence interval for a difference of binomial proportions based on paired data*. 2012)."""
    down, up = (lost + 1) / (rows + 2), (gained + 1) / (rows + 2)
    middle = down - up
    reach = float(stats.norm.isf((1 - level) / 2)) * ((down + up - middle**2) / (rows + 2)) ** 0.5
    return Interval((lost - gained) / rows, max(middle - reach, -1.0), min(middle + reach, 1.0))


@dataclass(frozen=True)
class Difference:
    """Mean of a - b over the pairs and its confidence interval; None where one pair allows none."""

    mean: float
    low: float | None
    high: float | None
    pairs: int


def paired(
    a: Sequence[float] | NDArray[np.floating], b: Sequence[float] | NDArray[np.floating]
) -> Difference:
    """Student's t interval of 95 % of the mean paired difference. a, b: [N]."""
    first, other = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != other.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"need two equally long lists, got {first.shape} and {other.shape}")
    differences = first - other
    mean, count = float(differences.mean()), len(differences)
    if count < 2:
        return Difference(mean, None, None, count)
    half = float(stats.t.ppf(0.975, count - 1) * differences.std(ddof=1) / np.sqrt(count))
    return Difference(mean, mean - half, mean + half, count)


def p_of_chance(hits: NDArray[np.integer] | int, rows: int, common: float) -> Floats:
    """p that as many of `rows` are right by giving the most common class, of share `common`, to all:
    exact binomial test, one-sided. hits: of one exit, or of several."""
    return np.asarray(stats.binom.sf(np.asarray(hits) - 1, rows, common))


def calibration_error(confidence: Floats, right: Bools) -> float | None:
    """Expected calibration error: |accuracy - mean confidence| in BINS equal-width bins of confidence
    [N], weighted by their rows. Rows of NaN are left out; None where no row is left."""
    rows, sure, hits = confidence_bins(confidence, right)
    return float(np.abs(hits - sure).sum() / rows.sum()) if rows.any() else None


def confidence_bins(confidence: Floats, right: Bools) -> Floats:
    """How many rows each of BINS equal-width bins of confidence has, the sum of their confidences and
    how many are right, [3, BINS]; rows of NaN are left out."""
    defined = ~np.isnan(confidence)
    sure, hits = confidence[defined].astype(np.float64), right[defined]
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    return np.stack([np.bincount(place, weights, BINS) for weights in (np.ones_like(sure), sure, hits)])


def auroc(scores: Floats, right: Bools) -> float | None:
    """The chance that a right row scores higher than a wrong one, a tie counting half; None where all
    rows are right or all wrong. scores, right: [N]."""
    hits = int(right.sum())
    misses = len(right) - hits
    if not hits or not misses:
        return None
    ranks = stats.rankdata(scores)
    return float((ranks[right].sum() - hits * (hits + 1) / 2) / (hits * misses))


def aurc(scores: Floats, right: Bools) -> float:
    """Area under the risk-coverage curve (Geifman and El-Yaniv, 2017): the share of wrong rows among the
    surest, averaged over how many of these are looked at; rows of equal score come in any order."""
    ranked = np.where(np.isnan(scores), -np.inf, scores)
    levels, place, sizes = np.unique(-ranked, return_inverse=True, return_counts=True)
    wrong = np.bincount(place, ~right, len(levels))
    rate = np.repeat(wrong / sizes, sizes)  # a row of a group of equals is wrong as often as the group
    return float((np.cumsum(rate) / np.arange(1, len(right) + 1)).mean())


@dataclass(frozen=True, eq=False)
class Curve:
    """What many settings of thresholds come to."""

    thresholds: Floats  # [T, E-1]
    accuracy: Floats  # [T], 0 to 1
    macs: Floats  # [T], mean of an image
    shares: Floats  # [T, E], of rows that leave at each exit


def sweep(scores: Floats, right: Bools, macs: Sequence[float], thresholds: Floats) -> Curve:
    """Accuracy and MACs of thresholds, [T] for all exits or [T, E-1], on scores [N, E]; infinity lets no
    row leave. right: [N, E]; macs: [E], of a row that leaves at each exit, all heads run."""
    rows, exits = scores.shape
    settings = np.asarray(thresholds, dtype=np.float64)
    if settings.ndim == 1:
        settings = np.repeat(settings[:, None], exits - 1, axis=1)
    shares = np.zeros((len(settings), exits))
    hits = np.zeros(len(settings))
    columns = np.asfortranarray(scores)
    for start in range(0, len(settings), 64):  # [64, N] flags stay in the processor's cache
        some = slice(start, start + 64)
        inside = np.ones((len(settings[some]), rows), dtype=bool)
        for exit in range(exits):
            leaving = inside.copy()
            if exit < exits - 1:
                leaving &= columns[:, exit] >= settings[some, exit, None]
                inside &= ~leaving
            shares[some, exit] = np.count_nonzero(leaving, axis=1)
            hits[some] += np.count_nonzero(leaving & right[:, exit], axis=1)
    shares /= rows
    return Curve(settings, hits / rows, shares @ np.asarray(macs, dtype=np.float64), shares)


def at_thresholds(
    logits: Floats,
    labels: NDArray[np.integer],
    macs: Sequence[float],
    full_macs: float,
    thresholds: Sequence[float],
) -> list[tuple[float, float]]:
    """Accuracy, and MACs as a share of `full_macs`, of each threshold on the confidence of logits [N, E,
    C]. labels: [N], or [N, C]; macs: [E], of an image that leaves at each exit."""
    sure = scoring.scores(scoring.usual(several(labels)), logits.astype(np.float64))
    right = alike(scoring.answers(logits, several(labels)), labels)
    curve = sweep(np.asarray(sure), right, macs, np.asarray(thresholds))
    return list(zip(curve.accuracy.tolist(), (curve.macs / full_macs).tolist(), strict=True))


@dataclass(frozen=True)
class Bound:
    """accuracy: 0 to 1.  macs: mean an image.  shares: of rows by exit."""

    accuracy: float
    macs: float
    shares: tuple[float, ...]


def oracle(right: Bools, macs: Sequence[float]) -> Bound:
    """Leave at the first exit that is right, at the last where none is: no policy on the same exits is
    more accurate. right: [N, E]; macs: [E], without heads that a policy would skip."""
    first = np.where(right.any(axis=1), right.argmax(axis=1), right.shape[1] - 1)
    shares = np.bincount(first, minlength=right.shape[1]) / len(right)
    return Bound(
        float(right.any(axis=1).mean()),
        float(shares @ np.asarray(macs, dtype=np.float64)),
        tuple(float(s) for s in shares),
    )


def random_exit(right: Bools, macs: Sequence[float], shares: Sequence[float]) -> Bound:
    """Leave at an exit drawn with probabilities `shares`: what a policy of those shares is worth without
    its scores. macs: [E], without the heads before, as a draw needs none of them."""
    odds = np.asarray(shares, dtype=np.float64)
    return Bound(
        float(right.mean(axis=0) @ odds),
        float(np.asarray(macs, dtype=np.float64) @ odds),
        tuple(float(s) for s in odds),
    )
