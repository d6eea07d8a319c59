"""What nothing else beats in accuracy, compute and training at once.

A beats B if it trains for no more, can answer for as little, is significantly more accurate at some
amount of compute, and significantly less accurate at none. Each pair is compared at amounts of its own,
and every number is that of one candidate: a candidate that joins or leaves turns no comparison around.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from offramp.analysis.stats.pairwise import ALPHA, Estimate, adjusted, holm, moderated, obstacle
from offramp.analysis.stats.sequential import InterimAnalyses, spent
from offramp.analysis.tradeoff import AnyAnswers, Floats

LEVELS = 5  # amounts of compute at which two are compared
CLOSE = 1.005  # costs that differ by half a percent count as equal


@dataclass(frozen=True, eq=False)
class Offer:
    """What a candidate has."""

    seeds: Mapping[int, AnyAnswers]  # its answers
    # MACs that its training takes, the mean over seeds; None where they were not counted
    training: float | None

    @property
    def cheapest(self) -> float:
        """The least MACs that all seeds can spend on average."""
        return max(a.cheapest for a in self.seeds.values())

    @property
    def dearest(self) -> float:
        """The most MACs that any seed spends."""
        return max(float(a.curve[1][0]) for a in self.seeds.values())

    def accuracy(self, macs: float) -> float:
        """Mean over seeds, for at most so many MACs."""
        return float(np.mean([a.on_images(macs).mean() for a in self.seeds.values()]))


@dataclass(frozen=True)
class Beaten:
    """Who beats a candidate, at which amounts of compute significantly, and the least p, adjusted over
    all pairs and amounts."""

    by: str
    macs: tuple[float, ...]
    p: float


def beaten(offers: Mapping[str, Offer], looks: InterimAnalyses | None = None) -> dict[str, Beaten]:
    """Those that another one beats. looks: where seeds were added until pairs were decided."""
    better, out = more_accurate(offers, looks), dict[str, Beaten]()
    for (a, b), values in better.items():
        best = Beaten(a, tuple(values), min(values.values()))
        if (b, a) not in better and _no_dearer(offers[a], offers[b]):
            out[b] = min(out.get(b, best), best, key=lambda each: each.p)
    return {} if len(out) == len(offers) else out  # a circle: nobody is ahead


def more_accurate(
    offers: Mapping[str, Offer], looks: InterimAnalyses | None = None
) -> dict[tuple[str, str], dict[float, float]]:
    """Who is significantly more accurate than whom: p by MACs, adjusted over all pairs and amounts."""
    at, tests = [], []
    for a, b in combinations(offers, 2):
        low = max(offers[a].cheapest, offers[b].cheapest)
        high = max(offers[a].dearest, offers[b].dearest)
        for macs in np.linspace(low, high, LEVELS if high > low else 1).tolist():
            if estimates := _estimates(offers[a], offers[b], macs, looks):
                at.append((a, b, macs))
                tests.append(estimates)
    if looks is None:
        p = adjusted(moderated([e for (e,) in tests], len(offers)))
    else:
        p = holm(spent(looks, tests))
    better: dict[tuple[str, str], dict[float, float]] = {}
    for (a, b, macs), estimates, value in zip(at, tests, p.tolist(), strict=True):
        if value < ALPHA:
            better.setdefault((a, b) if estimates[-1].mean > 0 else (b, a), {})[macs] = value
    return better


def _no_dearer(a: Offer, b: Offer) -> bool:
    """Whether `a` costs no more than `b`, in training and at the least of inference."""
    if a.cheapest > CLOSE * b.cheapest or (a.training is None) != (b.training is None):
        return False
    return a.training is None or b.training is None or a.training <= CLOSE * b.training


def _estimates(a: Offer, b: Offer, macs: float, looks: InterimAnalyses | None) -> Sequence[Estimate]:
    """Of a's accuracy less b's, for at most so many MACs: one, or one for each look; none where nothing
    tells how much it varies, as of a network and itself."""
    common = sorted(a.seeds.keys() & b.seeds.keys())
    looks = looks or InterimAnalyses(tuple(map(str, common)), len(common))
    place = {seed: k for k, seed in enumerate(looks.order)}
    both = sorted((s for s in common if str(s) in place), key=lambda s: place[str(s)])
    keys = {(a.seeds[s].source, b.seeds[s].source) for s in both}
    images = {o.seeds[s].images for o in (a, b) for s in both}
    by_image = len(images) == 1 and "" not in images
    if all(mine == theirs != "" for mine, theirs in keys):
        return ()
    first, second = ([side.seeds[s].on_images(macs) for s in both] for side in (a, b))
    x, y = (np.array([row.mean() for row in rows]) for rows in (first, second))
    if obstacle(x, y, by_image) is not None:
        return ()
    values: Floats = np.array(first) - np.array(second) if by_image else x - y
    return looks.at(values)
