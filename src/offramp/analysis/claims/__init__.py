"""Findings as checkable statements, and what a tidy table says of each; docs/claims.md."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import pandas as pd

from offramp.analysis.claims.claim import Claim, Claims, Regime
from offramp.analysis.claims.judge import VERDICTS, Judgment, judge
from offramp.analysis.claims.parts import Index, OnImages, index
from offramp.analysis.families import NO_FAMILIES, StrategyFamilies
from offramp.analysis.measures import Numbers, find_measure, numbers, observations
from offramp.analysis.stats.pairwise import ALPHA

__all__ = [
    "VERDICTS",
    "Claim",
    "Claims",
    "Index",
    "Judgment",
    "OnImages",
    "Regime",
    "check",
    "index",
    "judge",
]


def check(
    claims: Sequence[Claim],
    table: pd.DataFrame | Numbers,
    regimes: Mapping[tuple[str, str], Regime] = MappingProxyType({}),
    images: Mapping[str, OnImages] = MappingProxyType({}),
    families: StrategyFamilies = NO_FAMILIES,
    alpha: float = ALPHA,
    *,
    levels: Mapping[str, tuple[pd.DataFrame, OnImages]] = MappingProxyType({}),
    plain: Collection[str] = (),
) -> list[Judgment]:
    """Test claims against a tidy table, p adjusted after Holm over all of them.

    Args:
        claims: In the order of the verdicts.
        table: The tidy table.
        regimes: What the trials of each model and data were made of. A claim that is bound to more than
            a name is not testable where that is unknown.
        images: Measures on each test image, by name; others are tested over seeds alone.
        families: What `core`, `hybrids` and `parents` stand for.
        alpha: What is significant.
        levels: Test accuracy at the compute that claims name (`Claim.at`), by that: observations, and
            the same on each test image.
        plain: Plain networks, which are compared at equal compute alone.
    """
    parts_of_table = table if isinstance(table, Numbers) else numbers(table)
    strategies = frozenset(parts_of_table.trials["strategy"])
    indices: dict[str, Index] = {}
    for claim in claims:
        if claim.column in indices:
            continue
        if claim.at is None:
            observed = observations(parts_of_table, find_measure(claim.measure))
            on_images, every, apart = images.get(claim.measure, {}), strategies, plain
        else:
            observed, on_images = levels[claim.at]
            every, apart = strategies | {*observed["strategy"]}, ()
        indices[claim.column] = index(claim.column, observed, every, regimes, on_images, families, apart)
    return judge(claims, indices, alpha)
