"""All pairs of independent groups: Tukey's HSD and Games–Howell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from offramp.analysis.stats.pairs import FLOOR, Pair, Pairs, UntestedPair
from offramp.analysis.stats.studentized import critical, tail
from offramp.analysis.stats.untested import Floats, same


def tukey(labels: Sequence[str], groups: Sequence[Floats], alpha: float) -> Pairs:
    """Tukey's honestly significant differences; Kramer's (1956) where sizes differ.

    groups: [n_i] each, n_i at least 2. Intervals hold together with probability 1 - alpha.
    """
    df = sum(len(g) for g in groups) - len(groups)
    scale = max(float(np.abs(g).max()) for g in groups)
    if all(same(g, scale) for g in groups):
        return _none(labels, groups, "no group varies")
    error = sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / df
    return tuple(
        _pair(a, b, x, y, np.sqrt(error / 2 * (1 / len(x) + 1 / len(y))), len(groups), df, alpha)
        for (a, x), (b, y) in combinations(zip(labels, groups, strict=True), 2)
    )


def games_howell(labels: Sequence[str], groups: Sequence[Floats], alpha: float) -> Pairs:
    """Games and Howell (1976): as Tukey's, but each pair has its own variance and degrees of freedom."""
    found: list[Pair | UntestedPair] = []
    for (a, x), (b, y) in combinations(zip(labels, groups, strict=True), 2):
        if same(x) and same(y):
            found.append(UntestedPair(a, b, "both are constant", float(x.mean() - y.mean())))
            continue
        u, v = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
        df = (u + v) ** 2 / (u**2 / (len(x) - 1) + v**2 / (len(y) - 1))
        found.append(_pair(a, b, x, y, np.sqrt((u + v) / 2), len(groups), float(df), alpha))
    return tuple(found)


def _pair(a: str, b: str, x: Floats, y: Floats, error: float, k: int, df: float, alpha: float) -> Pair:
    difference = float(x.mean() - y.mean())
    p = tail(abs(difference) / error, k, df)
    half = critical(1 - alpha, k, df) * error
    return Pair(
        *(a, b, difference, float(difference - half), float(difference + half)),
        p=max(p, FLOOR),
        floored=p < FLOOR,
    )


def _none(labels: Sequence[str], groups: Sequence[Floats], why: str) -> Pairs:
    return tuple(
        UntestedPair(a, b, why, float(x.mean() - y.mean()))
        for (a, x), (b, y) in combinations(zip(labels, groups, strict=True), 2)
    )
