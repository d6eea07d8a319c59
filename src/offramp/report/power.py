"""How many seeds it takes to show a difference in test accuracy, as the trials at hand vary."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from offramp.analysis.measures import MEASURES
from offramp.analysis.stats.pairwise import POWER, Estimate, crossed, over_blocks
from offramp.report.evidence import Evidence
from offramp.report.runs import VALUES, Runs

ALPHA, MOST = 0.05, 500


@dataclass(frozen=True)
class PairNeeds:
    """Seeds that show the difference of one pair with probability POWER, MOST at most.

    seeds: None where more are needed, or none would do.  limit: the smallest difference (accuracy, 0 to
    1) that any number of seeds shows on these test images.
    """

    a: str
    b: str
    seeds: int | None
    limit: float


@dataclass(frozen=True)
class SeedsNeeded:
    """For a difference in accuracy, 0 to 1, of the mean over exits, among so many pairs.

    seeds, images: that the pairs at hand have, at least; images 0 where each seed drew its own.
    typical, widest: the pair in the middle, and the one that needs most; None where nothing says how
    much pairs vary, and `why` says why.
    """

    difference: float
    pairs: int
    seeds: int = 0
    images: int = 0
    typical: PairNeeds | None = None
    widest: PairNeeds | None = None
    why: str | None = None


def seeds_needed(
    found: Evidence, model: str, data: str, strategies: Collection[str], difference: float
) -> SeedsNeeded:
    """How many seeds a study of these strategies takes, from the trials of its network and data."""
    runs = next((r for r in found.runs if (r.model, r.data) == (model, data)), None)
    if runs is None:
        why = f"the store holds no trial of {model} on {data}; run the study with three seeds first"
        return SeedsNeeded(difference, 0, why=why)
    estimates, images = _estimates(runs, strategies)
    seeds = min((e.blocks for e in estimates.values()), default=0)
    if not estimates:
        why = (
            "the store holds fewer than two seeds of any two strategies with the same exits, so nothing "
            "says how much they vary; run three seeds first"
        )
        return SeedsNeeded(difference, 0, why=why)
    needs = [_needs(pair, e, difference, len(estimates)) for pair, e in estimates.items()]
    needs.sort(key=lambda n: (math.inf if n.seeds is None else n.seeds, n.limit))
    return SeedsNeeded(difference, len(needs), seeds, images, needs[(len(needs) - 1) // 2], needs[-1])


def _needs(pair: tuple[str, str], found: Estimate, difference: float, pairs: int) -> PairNeeds:
    reach = stats.norm.isf(ALPHA / pairs / 2) + stats.norm.ppf(POWER)
    limit = float(reach * math.sqrt(found.shared))
    seeds = None if limit >= difference else found.blocks_for(difference, pairs, MOST)
    return PairNeeds(*pair, seeds, limit)


def _estimates(runs: Runs, strategies: Collection[str]) -> tuple[dict[tuple[str, str], Estimate], int]:
    """Differences of each pair that shares two seeds, and the number of test images."""
    measure = MEASURES["accuracy-test"]
    rows = zip(*(runs.values(measure)[c] for c in VALUES), strict=True)
    known = {(str(s), str(n)): np.array([v]) for s, n, v in rows if s in strategies}
    images = runs.images(measure)
    known = known if images is None else {key: images[key] for key in known}
    estimates = {}
    for a, b in combinations(sorted({s for s, _ in known}), 2):
        both = [n for s, n in known if s == a and (b, n) in known]
        values = np.array([known[a, n] - known[b, n] for n in both])
        if len(both) > 1:
            estimates[a, b] = over_blocks(values[:, 0]) if images is None else crossed(values)
    return estimates, 0 if images is None else len(next(iter(images.values()), ()))
