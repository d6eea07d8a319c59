"""A claim taken apart: what is compared with what, and the values of both by seed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise, product
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from offramp.analysis.claims.claim import Claim, DataSet, Regime
from offramp.analysis.families import NO_FAMILIES, StrategyFamilies
from offramp.analysis.stats.pairwise import FEWEST
from offramp.analysis.stats.sample import Floats
from offramp.errors import nearest


class Location(NamedTuple):
    """Where a value stands; exit None: overall."""

    model: str
    data: str
    strategy: str
    exit: int | None


@dataclass(frozen=True)
class Series:
    """Values of one place, [n], by seed ascending. sources, measured: as of `measures.observations`."""

    seeds: tuple[int, ...]
    values: Floats
    sources: tuple[str, ...]
    measured: bool


OnImages = Mapping[Location, Mapping[int, Floats]]
"""A measure of a place on each test image, [N], by seed."""


@dataclass(frozen=True, eq=False)
class Index:
    """A measure's observations by place."""

    measure: str
    series: Mapping[Location, Series]
    cells: tuple[tuple[str, str], ...]  # pairs of model and data
    final: Mapping[tuple[str, str], int]  # of each, the number of the final exit
    strategies: frozenset[str]  # all that have trials, whether or not they have this measure
    regimes: Mapping[tuple[str, str], Regime]  # of cells, what is known of their trials
    images: OnImages = field(default_factory=dict)  # the measure on each test image
    families: StrategyFamilies = NO_FAMILIES
    plain: Collection[str] = ()  # plain networks, which are compared at equal compute alone


@dataclass(frozen=True)
class Comparison:
    """One comparison: the mean over the places on the left, minus that over those on the right."""

    left: tuple[Location, ...]
    right: tuple[Location, ...]


def index(
    measure: str,
    observed: pd.DataFrame,
    strategies: Collection[str],
    regimes: Mapping[tuple[str, str], Regime] = MappingProxyType({}),
    images: OnImages = MappingProxyType({}),
    families: StrategyFamilies = NO_FAMILIES,
    plain: Collection[str] = (),
) -> Index:
    """Index a measure's observations (columns measures.OBSERVATION), over seeds and on each image.
    strategies: of the whole table; plain: plain networks, which are compared at equal compute alone."""
    columns = [observed[c].tolist() for c in ("model", "data", "strategy", "seed", "value", "measured")]
    exits = observed["exit"].astype("Int64").fillna(0).tolist()
    sources = observed["source"].fillna("").tolist()
    gathered: dict[Location, list[tuple[int, float, str, bool]]] = {}
    rows = zip(*columns, exits, sources, strict=True)
    for model, data, strategy, seed, value, is_measured, exit, source in rows:
        place = Location(str(model), str(data), str(strategy), int(exit) or None)
        gathered.setdefault(place, []).append((seed, value, str(source), is_measured))
    series = {}
    for place, rows_of_place in gathered.items():
        seeds, numbers, keys, is_measured = zip(*sorted(rows_of_place), strict=True)
        series[place] = Series(seeds, np.array(numbers, dtype=float), keys, all(is_measured))
    final: dict[tuple[str, str], int] = {}
    for place in series:
        cell = (place.model, place.data)
        final[cell] = max(final.get(cell, 0), place.exit or 0)
    labels = frozenset(strategies)
    cells = tuple(sorted(final))
    return Index(measure, series, cells, final, labels, regimes, images, families, plain)


def parts(claim: Claim, index: Index) -> list[Comparison]:
    """All comparisons that the claim makes in the pairs of model and data that are there. Places may be
    without values: `values` says so."""
    return [
        Comparison(left, right)
        for model, data in cells(claim, index)
        for exit in _exits(claim, index, (model, data))
        for left, right in _sides(claim, index, Location(model, data, "", exit))
    ]


def cells(claim: Claim, index: Index) -> list[tuple[str, str]]:
    """Pairs of model and data that the claim is about, of those that are there."""
    return [
        (m, d) for m, d in index.cells if _match(m, claim.models) and _meant(claim.data, index, (m, d))
    ]


def nearest_cell(claim: Claim, index: Index) -> str:
    """Where no runs are those that a claim is about: what the nearest ones are, and what they should
    be. Empty where the claim asks for a name alone."""
    off = [
        (
            data_set.off(model, data, index.regimes.get((model, data))),
            data_set.title,
            f"{model} on {data}",
        )
        for model, data in index.cells
        for data_set in claim.data
        if not data_set.plain and _match(model, claim.models)
    ]
    if not off:
        return ""
    lacking, title, place = min(off, key=lambda data_set: len(data_set[0]))
    here, claimed = (", ".join(words) for words in zip(*lacking, strict=True))
    like = f"like those on {title}, " if title else ""
    return f"runs {like}with {claimed}: {place} has {here}"


def _meant(sets: Sequence[DataSet], index: Index, cell: tuple[str, str]) -> bool:
    return any(not data_set.off(*cell, index.regimes.get(cell)) for data_set in sets)


def _match(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _exits(claim: Claim, index: Index, cell: tuple[str, str]) -> list[int | None]:
    if claim.exits == "overall":
        return [None]
    return list(dict.fromkeys(index.final[cell] if e == "final" else e for e in claim.exits))


ComparedSides = tuple[tuple[Location, ...], tuple[Location, ...]]


def _sides(claim: Claim, index: Index, at: Location) -> Iterator[ComparedSides]:
    """Left and right at one model, data set and exit."""
    if claim.order is not None:
        for a, b in pairwise(claim.order):
            yield (at._replace(strategy=a),), (at._replace(strategy=b),)
        return
    lefts = [at._replace(strategy=s) for s in index.families.expanded(claim.strategies or ())]
    if claim.against is not None:
        parents = claim.against == ("parents",)
        names = [p.strategy for p in lefts]
        for group in [[p] for p in lefts] if parents else [lefts]:
            own = index.families.parents.get(group[0].strategy, ())
            others = own if parents else index.families.expanded(claim.against)
            rights = [at._replace(strategy=s) for s in others if s not in names]
            yield from _paired(claim, group, rights)
        return
    for left in lefts:
        rights = list(_elsewhere(claim, index, left))
        yield from _paired(claim, [left], rights)


def _elsewhere(claim: Claim, index: Index, left: Location) -> Iterator[Location]:
    """The same strategy at other exits, on other models or on other data."""
    cell = (left.model, left.data)
    for exit in claim.against_exits or ():
        number = index.final[cell] if exit == "final" else exit
        if number != left.exit:
            yield left._replace(exit=number)
    for model, data in (other for other in index.cells if other != cell):
        if claim.against_models and data == left.data and _match(model, claim.against_models):
            yield left._replace(model=model)
        if model == left.model and _meant(claim.against_data or (), index, (model, data)):
            yield left._replace(data=data)


def _paired(
    claim: Claim, lefts: Sequence[Location], rights: Sequence[Location]
) -> Iterator[ComparedSides]:
    if claim.by == "mean":
        if lefts and rights:
            yield tuple(lefts), tuple(rights)
        return
    for left, right in product(lefts, rights):
        yield (left,), (right,)


@dataclass(frozen=True)
class PairedValues:
    """Both sides of a comparison."""

    # left, right: means by seed, [n], of the seeds that all places have
    left: Floats
    right: Floats
    missing: str = ""  # why a part cannot be tested, empty if it can
    identical: bool = False  # whether both sides come from the same weights
    # the differences on each test image, [n, N], where all places answered the same ones
    images: Floats | None = None


NONE = np.array([], dtype=float)


def values(part: Comparison, index: Index) -> PairedValues:
    """Both sides of a part, seed by seed."""
    places = (*part.left, *part.right)
    for place in places:
        if place not in index.series:
            return PairedValues(NONE, NONE, _lacks(place, index))
    series = [index.series[place] for place in places]
    seeds: tuple[int, ...] = series[0].seeds
    if all(s.seeds == seeds for s in series):
        rows = np.stack([s.values for s in series])
    else:
        seeds = tuple(sorted(set.intersection(*(set(s.seeds) for s in series))))
        rows = np.array([[s.values[s.seeds.index(seed)] for seed in seeds] for s in series])
        rows = rows.reshape(len(series), len(seeds))
    left, right = rows[: len(part.left)].mean(axis=0), rows[len(part.left) :].mean(axis=0)
    # A mean over several may agree by chance of its parts; only one place against another is identical.
    alone = len(part.left) == len(part.right) == 1 and part.left[0].exit == part.right[0].exit
    if alone and seeds and _agree(series[0], series[1], seeds):
        return PairedValues(left, right, identical=True)
    if not all(s.measured for s in series):
        why = "measured costs: these are estimates (run with --execution plain)"
        return PairedValues(left, right, why)
    cells = {(place.model, place.data) for place in places}
    by_image = all(place in index.images for place in places) and _same_images(cells, index)
    # By luck two seeds often agree to the last image, and then nothing seems to vary over seeds.
    needed, word = (FEWEST, "three") if by_image else (2, "two")
    if len(seeds) < needed:
        return PairedValues(left, right, f"seeds: {len(seeds) or 'none'} in common, {word} are needed")
    if not by_image:
        return PairedValues(left, right)
    of = [np.array([index.images[place][seed] for seed in seeds]) for place in places]
    sides = (np.mean(of[: len(part.left)], axis=0), np.mean(of[len(part.left) :], axis=0))
    return PairedValues(left, right, images=sides[0] - sides[1])


def _same_images(cells: Collection[tuple[str, str]], index: Index) -> bool:
    """Whether the trials of all cells answered the same test images. Those of one did, or `Index.images`
    has none."""
    regimes = [index.regimes.get(cell) for cell in cells]
    keys = {"" if regime is None else regime.images for regime in regimes}
    return len(cells) == 1 or (len(keys) == 1 and "" not in keys)


def _agree(a: Series, b: Series, seeds: Sequence[int]) -> bool:
    keys = [(a.sources[a.seeds.index(s)], b.sources[b.seeds.index(s)]) for s in seeds]
    return all(first and first == second for first, second in keys)


def _lacks(place: Location, index: Index) -> str:
    if place.strategy in index.plain:
        return f"`at`: {place.strategy} is compared at equal compute alone, so add it"
    if place.strategy not in index.strategies:
        names = (*index.families.core, *index.families.parents, "baseline")
        hint = nearest(place.strategy, names) if place.strategy not in names else ""
        return f"the strategy {place.strategy}{hint if 'did you mean' in hint else ''}"
    exit = "" if place.exit is None else f" at exit {place.exit}"
    return f"{index.measure} of {place.strategy} on {place.model}, {place.data}{exit}"
