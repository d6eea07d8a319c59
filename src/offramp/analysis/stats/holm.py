"""All pairs of groups that share blocks: paired differences, adjusted after Holm (1979)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy import stats

from offramp.analysis.stats.pairs import Pair, Pairs, UntestedPair
from offramp.analysis.stats.sample import Group
from offramp.analysis.stats.untested import Floats, same


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
