"""Guarantees on a risk between 0 and 1, from losses on a calibration split: of 0 and 1, or between them.

All of them assume that calibration rows and future inputs are drawn independently from one distribution
(for `conformal`, exchangeably), and that the candidates were fixed before the calibration rows were
read. `docs/calibration.md` says what they promise and what not.

Where classes are to count by other shares than they have there, `Strata` weigh the rows, and the
assumption is weaker: rows *of a class* are drawn as the inputs of that class are.

References:
    Angelopoulos, Bates, Candès, Jordan, Lei, *Learn then test* (2021).
    Bates et al., *Distribution-free, risk-controlling prediction sets* (2021).
    Angelopoulos, Bates, Fisch, Lei, Schuster, *Conformal risk control* (2022).
    Jazbec et al., *Fast yet safe* (2024), for early exits.
    Clopper and Pearson (1934).
    With strata: Hoeffding, *Probability inequalities for sums of bounded random variables* (1963).
    Bentkus, *On Hoeffding's inequalities* (2004).
    Kish, *Survey sampling* (1965).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.floating]
MOST_SAMPLES = 10_000_000


@dataclass(frozen=True, eq=False)
class Strata:
    """Calibration rows whose classes are to count by given shares. Raises ValueError for a class with a
    share and no row."""

    labels: NDArray[np.integer]  # [N], numbers of classes
    shares: Sequence[float]  # of each class, 0 to 1; their sum is 1

    def __post_init__(self) -> None:
        if missing := [c for c, share in enumerate(self.shares) if share and not self.counts[c]]:
            raise ValueError(f"{missing[0]}")

    @cached_property
    def counts(self) -> NDArray[np.integer]:
        """[C] rows of each class."""
        return np.bincount(self.labels, minlength=len(self.shares))

    @cached_property
    def weights(self) -> Floats:
        """[N], of mean 1: a class's share over its share of the rows."""
        by_class = np.asarray(self.shares) / np.maximum(self.counts, 1)
        return np.asarray(by_class[self.labels] * len(self.labels))

    @property
    def effective(self) -> float:
        """How many rows of equal weight would tell as much (Kish)."""
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())

    def p_value(self, mean: float, risk: float) -> float:
        """The chance of a weighted mean loss of at most `mean` if the true risk, by the shares, were
        `risk`.

        Given the labels, weighted losses are independent, each from 0 to its weight. The least of three
        bounds is a bound: Hoeffding's of sums whose terms have ranges of their own, with Kish's
        effective number of rows; and, of losses divided by the largest weight, Hoeffding's of relative
        entropy and Bentkus's."""
        if mean >= risk:
            return 1.0
        rows, most = len(self.labels), float(self.weights.max())
        scaled = hoeffding_bentkus(mean / most, min(risk / most, 1.0), rows)
        return min(math.exp(-2 * self.effective * (risk - mean) ** 2), scaled)

    def upper_bound(self, mean: float, confidence: float) -> float:
        """The least risk that `p_value` refuses at 1 - confidence: below the true one in at most that
        share of all draws."""
        return _least_refused(self.p_value, mean, confidence)


def hoeffding_bentkus(mean: float, risk: float, rows: int) -> float:
    """The chance of a mean loss of at most `mean` if the true risk were `risk`, of losses from 0 to 1:
    the least of Hoeffding's bound of relative entropy and Bentkus's."""
    if mean >= risk:
        return 1.0
    entropy = stats.entropy([mean, 1 - mean], [risk, 1 - risk])
    at_most = math.ceil(rows * mean - 1e-9)
    return min(math.exp(-rows * float(entropy)), math.e * float(stats.binom.cdf(at_most, rows, risk)))


def _least_refused(p_value: Callable[[float, float], float], mean: float, confidence: float) -> float:
    low, high = mean, 1.0
    if p_value(mean, high) > 1 - confidence:
        return 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if p_value(mean, middle) <= 1 - confidence else (middle, high)
    return high


def bound_of(losses: Floats, confidence: float) -> float:
    """What the true risk is below but for 1 - confidence of all draws. losses: [N], 0 to 1."""
    if _binary(losses):
        return upper_bound(int(losses.sum()), len(losses), confidence)
    p_value = partial(hoeffding_bentkus, rows=len(losses))
    return _least_refused(p_value, float(losses.mean()), confidence)


def _binary(losses: Floats) -> bool:
    return bool(((losses == 0) | (losses == 1)).all())


def upper_bound(failures: int, rows: int, confidence: float) -> float:
    """The one-sided Clopper–Pearson bound: below the true risk in at most 1 - confidence of all draws.
    Losses are 0 or 1, so their sum is binomial: the bound is under a risk exactly when the binomial tail
    of that risk is under 1 - confidence."""
    return 1.0 if failures >= rows else float(stats.beta.ppf(confidence, failures + 1, rows - failures))


def learn_then_test(losses: Floats, risk: float, confidence: float, strata: Strata | None = None) -> int:
    """Learn then Test with a fixed sequence: how many candidates, from the first on, are certified.

    Each is tested at level 1 - confidence and the first that fails ends it, so the chance that *any*
    certified one has a true risk above `risk` is at most 1 - confidence. losses: [N, J], in that
    order."""
    if strata is None and not _binary(losses):
        tails = [hoeffding_bentkus(mean, risk, len(losses)) for mean in losses.mean(axis=0).tolist()]
        passed = np.array(tails) <= 1 - confidence
    elif strata is None:
        passed = stats.binom.cdf(losses.sum(axis=0), len(losses), risk) <= 1 - confidence
    else:
        means = strata.weights @ losses / len(losses)
        passed = np.array([strata.p_value(mean, risk) <= 1 - confidence for mean in means.tolist()])
    return len(passed) if passed.all() else int(np.argmin(passed))


def conformal(losses: Floats, risk: float, strata: Strata | None = None) -> int:
    """Conformal risk control: how many candidates, from the safest on, pass. losses: [N, J], from 0 to
    1.

    Losses are made monotone (the worst among the candidates up to there), which only raises them. The
    mean true risk of the last that passes, over calibration draws, is at most `risk`; nothing is
    promised of one draw. With strata each class has a further row that is lost, and the proof goes class
    by class."""
    worst = np.maximum.accumulate(losses, axis=1)
    if strata is None:
        passed = (worst.sum(axis=0) + 1) / (len(losses) + 1) <= risk
    else:
        lost = np.stack([worst[strata.labels == c].sum(axis=0) for c in range(len(strata.shares))])
        passed = np.asarray(strata.shares) / (strata.counts + 1) @ (lost + 1) <= risk
    return len(passed) if passed.all() else int(np.argmin(passed))


def met_on_average(losses: Floats, target: float, strata: Strata | None = None) -> int:
    """How many candidates, from the safest on, meet a target with a standard error and a row to spare:
    no guarantee, but in simulations the mean true loss of the last one, over draws, is below it.

    The first that fails ends it: the best of many that fit would look better than it is. losses: [N, J],
    from -1 to 1. The error is that of the mean loss (Breiman et al., *Classification and regression
    trees*, 1984, choose by one of them), the row that of `conformal`."""
    rows = len(losses)
    weights = np.ones(rows) if strata is None else strata.weights
    sums = weights @ losses
    spread = np.sqrt((weights[:, None] ** 2 * (losses - sums / rows) ** 2).sum(axis=0))
    most = weights.max()  # of the row to spare
    passed = sums + spread + most <= target * (rows + most) + 1e-9
    return len(passed) if passed.all() else int(np.argmin(passed))


def rows_needed(risk: float, confidence: float, rate: float = 0.0) -> int | None:
    """The fewest rows with which a candidate that fails on a share `rate` of them is certified; None
    when no number is enough, or more than ten million."""
    if rate >= risk:
        return None
    start = 1
    while start <= MOST_SAMPLES:
        counts = np.arange(start, start + 100_000)
        passed = stats.binom.cdf(np.ceil(rate * counts), counts, risk) <= 1 - confidence
        if passed.any():
            return int(counts[np.argmax(passed)])
        start += 100_000
    return None


def rows_needed_on_average(risk: float, rate: float = 0.0) -> int | None:
    """The fewest rows with which `conformal` lets such a candidate pass: the smallest n with (n · rate +
    1) / (n + 1) at most `risk`; None as for `rows_needed`."""
    if rate >= risk:
        return None
    needed = math.ceil(round((1 - risk) / (risk - rate), 6))
    return needed if needed <= MOST_SAMPLES else None
