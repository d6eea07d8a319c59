"""Guarantees on a risk between 0 and 1, from losses of 0 and 1 on a calibration split.

All of them assume that the calibration rows and the inputs to come are drawn alike and independently
of one another (for `conformal`, exchangeably), and that the candidates were fixed before the
calibration rows were looked at. `docs/calibration.md` says what they promise and what not.

Sources: Angelopoulos, Bates, Candès, Jordan, Lei, *Learn then test* (2021); Bates et al.,
*Distribution-free, risk-controlling prediction sets* (2021); Angelopoulos, Bates, Fisch, Lei, Schuster,
*Conformal risk control* (2022); Jazbec et al., *Fast yet safe* (2024), for early exits; Clopper and
Pearson (1934).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.floating]
MOST_SAMPLES = 10_000_000


def p_value(failures: int, rows: int, risk: float) -> float:
    """The chance of at most so many failures if the true risk were `risk`: small when it is lower.

    Losses are 0 or 1, so their sum is binomial and its exact tail a valid p-value. It is never larger
    than that of Hoeffding and Bentkus, whose second half is this tail times e.
    """
    return float(stats.binom.cdf(failures, rows, risk))


def upper_bound(failures: int, rows: int, confidence: float) -> float:
    """The one-sided Clopper–Pearson bound: below the true risk in at most 1 - confidence of all draws.

    It is under a risk exactly when `p_value` is under 1 - confidence.
    """
    return 1.0 if failures >= rows else float(stats.beta.ppf(confidence, failures + 1, rows - failures))


def learn_then_test(losses: Floats, risk: float, confidence: float) -> int:
    """Learn then Test with a fixed sequence: how many candidates, from the first on, are certified.

    losses: [N, J], 0 or 1, candidates in the order in which they are tested. Each is tested at level
    1 - confidence and the first that fails ends it, so the chance that *any* certified one has a true
    risk above `risk` is at most 1 - confidence.
    """
    rows = len(losses)
    failures = losses.sum(axis=0)
    passed = stats.binom.cdf(failures, rows, risk) <= 1 - confidence
    return len(passed) if passed.all() else int(np.argmin(passed))


def conformal(losses: Floats, risk: float) -> int:
    """Conformal risk control: how many candidates, from the first on, are kept.

    losses: [N, J], 0 or 1, from the safest candidate to the boldest. The loss of a row is first made
    monotone (the worst among the candidates up to there), which only raises it. Then the mean of the
    true risk of the last candidate kept, over calibration draws, is at most `risk`. Of one draw it says
    nothing.
    """
    rows = len(losses)
    worst = np.maximum.accumulate(losses, axis=1).sum(axis=0)
    passed = (worst + 1) / (rows + 1) <= risk
    return len(passed) if passed.all() else int(np.argmin(passed))


def met_on_average(losses: Floats, target: float) -> int:
    """How many candidates, from the first on, meet a target with a standard error and a row to spare:
    no guarantee, but in simulations the mean true loss of the last one, over draws, is below it.

    losses: [N, J], from -1 to 1, from the safest candidate to the boldest. The first that fails ends
    it, whatever comes after: the best of many that fit would look better than it is. The standard error
    is that of the mean loss (Breiman et al., *Classification and regression trees*, 1984, choose by one
    of them), and the row is that of `conformal`.
    """
    rows = len(losses)
    sums = losses.sum(axis=0)
    spread = np.sqrt(np.maximum((losses**2).sum(axis=0) - sums**2 / rows, 0))
    passed = sums + spread + 1 <= target * (rows + 1) + 1e-9
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
    """The same for `conformal`: the smallest n with (n · rate + 1) / (n + 1) at most `risk`."""
    if rate >= risk:
        return None
    needed = math.ceil(round((1 - risk) / (risk - rate), 6))
    return needed if needed <= MOST_SAMPLES else None
