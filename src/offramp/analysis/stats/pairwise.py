"""All pairs of groups: Tukey's HSD and Games–Howell of independent ones, and of those that share
blocks paired differences, adjusted after Holm (1979)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtr

from offramp.analysis.stats.sample import Floats, Group, same

FLOOR = 1e-12  # below it the tail of the studentized range is rounding error


@dataclass(frozen=True)
class Pair:
    """Mean of a minus mean of b, its simultaneous interval, and p adjusted for the number of pairs.

    floored: p is below FLOOR, which stands in its place.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    floored: bool = False


@dataclass(frozen=True)
class UntestedPair:
    """Two groups that could not be compared. difference: None where they share no block."""

    a: str
    b: str
    why: str
    difference: float | None = None


Pairs = tuple[Pair | UntestedPair, ...]


def tukey(labels: Sequence[str], groups: Sequence[Floats], alpha: float) -> Pairs:
    """Tukey's honestly significant differences; Kramer's (1956) where sizes differ.

    groups: [n_i] each, n_i at least 2. Intervals hold together with probability 1 - alpha.
    """
    df = sum(len(g) for g in groups) - len(groups)
    scale = max(float(np.abs(g).max()) for g in groups)
    if all(same(g, scale) for g in groups):
        return tuple(
            UntestedPair(a, b, "no group varies", float(x.mean() - y.mean()))
            for (a, x), (b, y) in combinations(zip(labels, groups, strict=True), 2)
        )
    error = sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / df
    found = []
    for one, other in combinations(zip(labels, groups, strict=True), 2):
        own = np.sqrt(error / 2 * (1 / len(one[1]) + 1 / len(other[1])))
        found.append(_pair(one, other, own, len(groups), df, alpha))
    return tuple(found)


def games_howell(labels: Sequence[str], groups: Sequence[Floats], alpha: float) -> Pairs:
    """Games and Howell (1976): as Tukey's, but each pair has its own variance and degrees of freedom."""
    found: list[Pair | UntestedPair] = []
    for (a, x), (b, y) in combinations(zip(labels, groups, strict=True), 2):
        if same(x) and same(y):
            found.append(UntestedPair(a, b, "both are constant", float(x.mean() - y.mean())))
            continue
        u, v = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
        df = (u + v) ** 2 / (u**2 / (len(x) - 1) + v**2 / (len(y) - 1))
        found.append(_pair((a, x), (b, y), np.sqrt((u + v) / 2), len(groups), float(df), alpha))
    return tuple(found)


def _pair(
    one: tuple[str, Floats], other: tuple[str, Floats], error: float, k: int, df: float, alpha: float
) -> Pair:
    (a, x), (b, y) = one, other
    difference = float(x.mean() - y.mean())
    p = tail(abs(difference) / error, k, df)
    half = critical(1 - alpha, k, df) * error
    low, high = float(difference - half), float(difference + half)
    return Pair(a, b, difference, low, high, max(p, FLOOR), floored=p < FLOOR)


def paired_differences(groups: Sequence[Group], alpha: float) -> Pairs:
    """Student's t over the blocks that both groups of a pair have, with Holm's adjustment of p.

    Intervals are Bonferroni's: together they hold the true differences with probability 1 - alpha or
    more. Holm's test is a little stronger, so it may find a difference whose interval touches zero.
    """
    drawn = [(g, h, *_common(g, h)) for g, h in combinations(groups, 2)]
    reasons = [_obstacle(x, y) for _, _, x, y in drawn]
    tested = [x - y for (_, _, x, y), why in zip(drawn, reasons, strict=True) if why is None]
    sizes = np.array([len(d) for d in tested])
    means = np.array([d.mean() for d in tested])
    errors = np.array([d.std(ddof=1) for d in tested]) / np.sqrt(sizes)
    adjusted = holm(2 * stats.t.sf(np.abs(means / errors), sizes - 1))
    halves = errors * stats.t.ppf(1 - alpha / (2 * max(len(tested), 1)), sizes - 1)
    numbers = zip(means.tolist(), halves.tolist(), adjusted.tolist(), strict=True)
    found: list[Pair | UntestedPair] = []
    for (g, h, x, y), why in zip(drawn, reasons, strict=True):
        if why is None:
            mean, half, p = next(numbers)
            found.append(Pair(g.label, h.label, mean, mean - half, mean + half, p))
        else:
            difference = float((x - y).mean()) if len(x) else None
            found.append(UntestedPair(g.label, h.label, why, difference))
    return tuple(found)


def holm(p: Floats) -> Floats:
    """Adjusted p: the smallest times m, the next times m - 1, ..., never falling, at most 1. p: [m].

    (statsmodels has this too, but collects garbage on every call, which takes a tenth of a second.)
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1.0)


def _common(g: Group, h: Group) -> tuple[Floats, Floats]:
    one, other = (dict(zip(x.blocks, x.values, strict=True)) for x in (g, h))
    blocks = [block for block in g.blocks if block in other]
    return np.array([one[b] for b in blocks]), np.array([other[b] for b in blocks])


def _obstacle(x: Floats, y: Floats) -> str | None:
    if len(x) < 2:
        return f"they share {'one block' if len(x) else 'no block'}, two are needed"
    scale = float(max(np.abs(x).max(), np.abs(y).max()))
    if not same(x - y, scale):
        return None
    if same(np.append(x - y, 0.0), scale):
        return "equal in every block; if identical by construction, say so (--same)"
    return "they differ by the same amount in every block, so there is nothing to measure it against"


# The studentized range. scipy has its tail and critical value, at some 10 ms and 100 ms; a report
# needs thousands. Here both integrals are sums over equally spaced points, which converge fast for
# integrands that vanish smoothly at both ends. Absolute error below 1e-13: the tests compare with scipy
# and with Student's t.
CUT = 45.0  # exp(-45) = 3e-20: where densities are cut off


def tail(q: float, k: int, df: float) -> float:
    """P(range of k standard normals / s > q), where df·s² is chi-squared with df degrees of freedom.

    Source: the defining double integral, as in Copenhaver and Holland (1988), eq. 1.1; with t = log s
    for the outer one.
    """
    logs, weights = _scales(df)
    return float(np.clip(weights @ _beyond(q * np.exp(logs), k), 0.0, 1.0))


@lru_cache(maxsize=1024)
def critical(level: float, k: int, df: float) -> float:
    """The q with tail(q, k, df) = 1 - level. level: between 0 and 1."""

    def excess(log_q: float) -> float:
        return tail(float(np.exp(log_q)), k, df) - (1 - level)

    return float(np.exp(brentq(excess, -7.0, 25.0, xtol=1e-12)))


def _scales(df: float) -> tuple[Floats, Floats]:
    """Points t = log s and their probabilities, in proportion to exp(df·(t + 1/2 - exp(2t)/2))."""
    reach = CUT / df
    low, high = -(reach + np.sqrt(reach)), np.sqrt(reach)
    step = min(0.1, 0.5 / np.sqrt(2 * df))  # the density's width is 1/√(2·df), or that of exp(t)
    logs = np.linspace(low, high, int(np.ceil((high - low) / step)))
    density = np.exp(df * (logs - 0.5 * np.expm1(2 * logs)))
    return logs, density / density.sum()


def _beyond(width: Floats, k: int) -> Floats:
    """P(range of k standard normals > width). width: [m]; returns [m]."""
    z = np.linspace(-8.5, 8.5, int(np.ceil(17 * np.sqrt(k) / 0.4)))  # Φ(z)^k narrows as √k
    density = k * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    within = ndtr(z) - ndtr(z - width[:, None])
    return np.asarray(1 - within ** (k - 1) @ density)
