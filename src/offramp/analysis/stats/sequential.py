"""Pairs that are looked at as seeds are added, until each is decided; the looks are paid for in advance.

At each look a pair is found different, found alike (two one-sided tests, Schuirmann 1987), or gets
more seeds. A look spends a share of alpha that is fixed before the first of them, and a difference is
found where a look's own p is at most its share of alpha. Shares add up to one, so a false finding is no
more likely than alpha, whichever way the looks depend on each other (a spending function, Lan and
DeMets 1983, with Bonferroni's bound in place of their boundary).

The usual boundaries suppose that looks are correlated like sums of normal values. Student's t of few
seeds is not (Rom and McTague 2020), and the luck of the test images is the same at every look. The
bound supposes nothing, and gives a p over all looks that Holm's adjustment over pairs can take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import stats

from offramp.analysis.stats.pairwise import (
    ALPHA,
    POWER,
    Estimate,
    Pair,
    Pairs,
    UntestedPair,
    common,
    differences,
    estimate,
    holm,
    obstacle,
    p_values,
)
from offramp.analysis.stats.sample import Floats, Group, same

Verdict = Literal["different", "alike", "open", "too few images"]


@dataclass(frozen=True)
class InterimAnalyses:
    """Looks get rarer as seeds do less: one after each seed at first, then after a third more. That
    finds more than a look after every seed, as fewer looks share alpha.

    Example:
        >>> InterimAnalyses(tuple(map(str, range(42, 62))), 3).counts
        (3, 4, 5, 6, 8, 10, 13, 17, 20)
    """

    # blocks (seeds) as they are added; the first look is at `first` of them, the last at all
    order: tuple[str, ...]
    first: int

    @property
    def counts(self) -> tuple[int, ...]:
        """How many blocks there are at each look."""
        counts = [self.first]
        while counts[-1] < len(self.order):
            counts.append(min(counts[-1] + max(1, counts[-1] // 3), len(self.order)))
        return tuple(counts)

    @property
    def shares(self) -> dict[int, float]:
        """Of alpha, what each look spends, by its blocks: as large as its share of new ones."""
        counts = self.counts
        new = zip(counts, (0, *counts), strict=False)
        return {count: (count - before) / counts[-1] for count, before in new}

    def at(self, values: Floats, scale: float = 1.0) -> tuple[Estimate, ...]:
        """The estimate at every look so far, of differences [S] or [S, images] in `order`. Over blocks
        alone, one at which all differ by the same is left out: its p would be 0. scale: the magnitude of
        what they are differences of."""
        looked = (values[:n] for n in self.counts if n <= len(values))
        return tuple(estimate(v) for v in looked if v.ndim > 1 or not same(v, scale))


@dataclass(frozen=True)
class Decision:
    """What the looks at a pair come to."""

    a: str
    b: str
    estimate: Estimate | None  # at the last one, None before the first
    # different, alike: p over all looks, adjusted for the pairs
    different: float
    alike: float
    verdict: Verdict


def decide(
    pairs: Mapping[tuple[str, str], Sequence[Estimate]],
    looks: InterimAnalyses,
    margin: float,
    alpha: float = ALPHA,
) -> tuple[Decision, ...]:
    """Decide each pair as far as it can be.

    Of all true statements "no difference" any is rejected with probability alpha at most, and so for
    "differ by the margin or more". Further looks change no verdict, but those of pairs that are open or
    have too few images: that no number of seeds is likely to decide.

    Args:
        pairs: Of the differences a - b at every look so far, as `looks.at` gives them.
        margin: Strategies that differ by less are alike.

    >>> rng, looks = np.random.default_rng(1), InterimAnalyses(("1", "2", "3", "4", "5"), 3)
    >>> values = 0.1 + rng.normal(0, 0.001, (5, 1)) + rng.normal(0, 0.1, (5, 1000))
    >>> decide({("a", "b"): looks.at(values)}, looks, 0.005)[0].verdict
    'different'
    """
    seen = list(pairs.values())
    different, alike = holm(spent(looks, seen)), holm(spent(looks, seen, margin))
    undecided = max(int(((different > alpha) & (alike > alpha)).sum()), 1)
    decisions = []
    for (a, b), estimates, p, q in zip(pairs, seen, different.tolist(), alike.tolist(), strict=True):
        last = estimates[-1] if estimates else None
        later = [share for n, share in looks.shares.items() if last is not None and n > last.blocks]
        verdict: Verdict = "different" if p <= alpha else "alike" if q <= alpha else "open"
        level = alpha * max(later, default=1.0) / undecided
        if verdict == "open" and last is not None and hopeless(last, margin, level):
            verdict = "too few images"
        decisions.append(Decision(a, b, last, p, q, verdict))
    return tuple(decisions)


def spent(
    looks: InterimAnalyses, seen: Sequence[Sequence[Estimate]], margin: float | None = None
) -> Floats:
    """p over all looks of each pair: the smallest of its looks' p, each divided by its share of alpha.
    Of no difference; with a margin, of a difference as large as that or larger."""
    every = [(k, e) for k, estimates in enumerate(seen) for e in estimates]
    pair = np.array([k for k, _ in every], dtype=int)
    numbers = [(abs(e.mean), e.between / e.blocks, e.shared, e.blocks - 1) for _, e in every]
    mean, seeds, images, df = np.array(numbers, dtype=float).reshape(-1, 4).T
    far = mean if margin is None else margin - mean
    p = np.where(far == 0, 1.0, p_values(far, seeds, images, df))
    if margin is not None:
        p = np.maximum(np.where(far > 0, p / 2, 1.0), [unseen(e, margin) for _, e in every])
    best, shares = np.ones(len(seen)), looks.shares
    np.minimum.at(best, pair, p / [shares[e.blocks] for _, e in every])
    return best


def unseen(estimate: Estimate, margin: float) -> float:
    """The probability that so many images show no difference at all where one in 1/margin does: no
    variance says so, as there is none. 0 where any shows one."""
    same = estimate.mean == estimate.between == estimate.shared == 0 and estimate.images > 0
    return float((1 - margin) ** estimate.images) if same else 0.0


def hopeless(estimate: Estimate, margin: float, level: float) -> bool:
    """Whether no number of seeds is likely to decide: their luck apart, that of the images alone is too
    much. level: of a look, two-sided."""
    if unseen(estimate, margin) > level:
        return True
    luck = float(stats.t.isf(0.025, estimate.blocks - 1)) * math.sqrt(estimate.between / estimate.blocks)
    images = math.sqrt(estimate.shared)
    near, far = max(abs(estimate.mean) - luck, 0.0), abs(estimate.mean) + luck
    return bool(
        far <= stats.norm.isf(level / 2) * images and near + stats.norm.isf(level) * images >= margin
    )


def sequential_differences(groups: Sequence[Group], alpha: float, looks: InterimAnalyses) -> Pairs:
    """As `paired_differences`, for blocks that were added after looking: p over all looks, intervals at
    the level of the last one."""
    pairs = list(combinations(groups, 2))
    rows = [_rows(g, h, looks) for g, h in pairs]
    scales = [float(np.abs([*g.values, *h.values]).max()) for g, h in pairs]
    seen = [looks.at(values, scale) for values, scale in zip(rows, scales, strict=True)]
    parts = zip(pairs, rows, seen, strict=True)
    why = [_why(g, h, looks, values, estimates) for (g, h), values, estimates in parts]
    tested = [k for k, reason in enumerate(why) if reason is None]
    p = dict(zip(tested, holm(spent(looks, [seen[k] for k in tested])), strict=True))
    tested_pairs: list[Pair | UntestedPair] = []
    for k, (g, h) in enumerate(pairs):
        reason = why[k]
        if reason is not None:
            difference = float(rows[k].mean()) if len(rows[k]) else None
            tested_pairs.append(UntestedPair(g.label, h.label, reason, difference))
            continue
        last = seen[k][-1]
        level = alpha * looks.shares[last.blocks] / len(tested)
        half = last.half(level)
        detectable = half + last.half(2 * (1 - POWER))
        ends = (last.mean, last.mean - half, last.mean + half)
        tested_pairs.append(Pair(g.label, h.label, *ends, float(p[k]), detectable=detectable))
    return tuple(tested_pairs)


def _rows(g: Group, h: Group, looks: InterimAnalyses) -> Floats:
    """Differences in the order in which blocks were added, [S] or [S, images]."""
    blocks, _, _ = common(g, h)
    place = {block: k for k, block in enumerate(looks.order)}
    order = sorted((k for k, b in enumerate(blocks) if b in place), key=lambda k: place[blocks[k]])
    return np.asarray(differences(g, h)[order])


def _why(
    g: Group, h: Group, looks: InterimAnalyses, values: Floats, estimates: Sequence[Estimate]
) -> str | None:
    if len(values) < looks.first:
        return f"they share fewer than the {looks.first} blocks of the first look"
    _, x, y = common(g, h)
    if (reason := obstacle(x, y, values.ndim > 1)) or estimates:
        return reason
    return "they differ by the same amount at every look, so there is nothing to measure it against"
