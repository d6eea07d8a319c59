"""How many seeds it takes to show a difference in test accuracy, as the trials at hand vary."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from offramp.analysis.measures import MEASURES
from offramp.analysis.stats.pairwise import Estimate, paired_estimates
from offramp.report.evidence import Evidence
from offramp.report.runs import Runs
from offramp.units import counted

MOST = 500


@dataclass(frozen=True)
class PairNeeds:
    """Seeds that show the difference of one pair with probability POWER, MOST at most."""

    a: str
    b: str
    seeds: int | None  # None where more are needed, or none would do
    # the smallest difference (accuracy, 0 to 1) that any number of seeds shows on these test images
    limit: float


@dataclass(frozen=True)
class SeedsNeeded:
    """For a difference in accuracy, 0 to 1, of the mean over exits, among so many pairs."""

    difference: float
    pairs: int
    # seeds, images: that the pairs at hand have, at least; images 0 where each seed drew its own
    seeds: int = 0
    images: int = 0
    # typical, widest: the pair in the middle, and the one that needs most; None where nothing says how
    # much pairs vary, and `why` says why
    typical: PairNeeds | None = None
    widest: PairNeeds | None = None
    why: str | None = None


def seeds_needed(
    evidence: Evidence, model: str, data: str, strategies: Collection[str], difference: float
) -> SeedsNeeded:
    """How many seeds a study of these strategies takes, from the trials of its network and data."""
    runs = next((r for r in evidence.runs if (r.model, r.data) == (model, data)), None)
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


def _needs(pair: tuple[str, str], estimate: Estimate, difference: float, pairs: int) -> PairNeeds:
    limit = replace(estimate, between=0.0).detectable(pairs)
    seeds = None if limit >= difference else estimate.blocks_for(difference, pairs, MOST)
    return PairNeeds(*pair, seeds, limit)


def _estimates(runs: Runs, strategies: Collection[str]) -> tuple[dict[tuple[str, str], Estimate], int]:
    """Differences of each pair that shares two seeds, and the number of test images."""
    whole = runs.sample(MEASURES["accuracy-test"])
    groups = () if whole is None else whole.keep(strategies).groups
    images = [row for group in groups for row in group.images]
    return paired_estimates(groups), len(images[0]) if images else 0


def power_line(needed: SeedsNeeded) -> str:
    """How many seeds a difference takes: a sentence or two."""
    points = f"{100 * needed.difference:g} points"
    if needed.typical is None or needed.widest is None:
        return f"Power: {needed.why}."
    typical, widest = (_in_words(pair, needed) for pair in (needed.typical, needed.widest))
    return (
        f"Power: with probability 80 %, among {counted(needed.pairs, 'pair')}, a difference of {points} "
        f"takes {typical} for a typical pair, and {widest} for the widest, {needed.widest.a} and "
        f"{needed.widest.b}. This goes by {counted(needed.seeds, 'seed')} in the store."
    )


def _in_words(pair: PairNeeds, needed: SeedsNeeded) -> str:
    if pair.seeds is not None:
        return counted(pair.seeds, "seed")
    if pair.limit < needed.difference:
        return "more than 500 seeds"
    return (
        f"a larger test split (any number of seeds shows {100 * pair.limit:.2g} points at best on these "
        f"{needed.images:,})"
    )
