"""Thresholds, one per exit, that lose least for every mean number of MACs.

With D early exits the best thresholds are a search in D dimensions. Three things make it quick. Only
cuts between two neighboring scores matter. The totals of all settings on a grid of cuts come at once
from D-dimensional histograms and their cumulative sums. And one such table answers for all budgets, so a
whole frontier costs about as much as a point of it.

The search is exhaustive on a coarse grid of cuts (on all cuts where they are few), for subsets of the
exits, as an exit where nothing leaves need not be run; then it refines every point by
exhaustive search over each pair of its exits, nearer and nearer around it. It is exact for one early
exit and up to 5,000 distinct scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray

from offramp.policy.costs import Costs

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Thresholds = tuple[float | None, ...]

CELLS = 100_000  # settings in a table of the coarse search
MOST_CUTS = 5_000
NEAR = 24  # cuts on each side of a point when it is refined
ROUNDS = 3
MOST_SUBSETS = 64
MOST_RUN = 12  # early exits in a table: two cuts and never for each are 500,000 settings


@dataclass(frozen=True)
class OperatingPoint:
    """Thresholds and what they come to where they were found: the mean loss and mean MACs of a row."""

    thresholds: Thresholds
    loss: float
    macs: float


@dataclass(frozen=True, eq=False)
class _Kept:
    """The exits that are run: `exits` early ones, then the last. losses: [N, D+1]; macs: [D+1]."""

    exits: tuple[int, ...]
    losses: Floats
    macs: Floats


@dataclass(frozen=True)
class _Setting:
    """A place in the search: the early exits that are run, and the cut of each; one past the last cut
    never lets a row leave."""

    exits: tuple[int, ...]
    cuts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Best:
    """For each budget of total MACs, the least total loss found, what it costs, and where. Filled in
    place by `_offer`."""

    budgets: Floats
    loss: Floats
    macs: Floats
    settings: list[_Setting | None]


def frontier(
    scores: Floats, losses: Floats, costs: Costs, points: int = 100, cuts: Sequence[Floats] | None = None
) -> tuple[OperatingPoint, ...]:
    """The best settings, from the dearest to the cheapest; the full network is the first, unless
    something cheaper loses no more. Each point is cheaper and loses more than the one before it.

    scores: [N, E], growing with certainty, or minus infinity; losses: [N, E]; points: budgets, evenly
    from the cheapest policy on; cuts: the thresholds to choose from at each early exit, ascending."""
    rows, count = losses.shape
    early = range(count - 1)
    cuts = cuts or [cut_points(scores[:, exit]) for exit in early]
    full = _Kept((), losses[:, -1:], np.array([float(costs.full)]))
    cheapest = min([costs.full, *(costs.leaving([exit])[0] for exit in early)])
    budgets = rows * np.linspace(cheapest, costs.full, points)
    nothing = np.full(points, np.inf)
    best = _Best(budgets, nothing, nothing.copy(), [None] * points)
    _offer(best, full, [], full.losses.sum(keepdims=True).reshape(-1), rows * full.macs)
    for exits in _subsets(count - 1):
        most = min(MOST_CUTS, int(CELLS ** (1 / len(exits))))
        grid = [_spread(len(cuts[exit]), most) for exit in exits]
        anywhere = _Setting(exits, (0,) * len(exits))
        _search(best, _keep(exits, losses, costs), anywhere, range(len(exits)), grid, scores, cuts)
    for level in range(ROUNDS):
        for setting in list(dict.fromkeys(s for s in best.settings if s is not None and s.exits)):
            _refine(best, _keep(setting.exits, losses, costs), setting, level, scores, cuts)
    return _points(best, rows, count, cuts)


def cut_points(scores: Floats, low: float = 0.0) -> Floats:
    """Thresholds that tell scores [N] apart, ascending: the least possible score, `low`, or without one
    the least seen, then one between each two neighbors. They are exact in float32, so that every
    comparison with a float32 score comes out alike in every library."""
    distinct = np.unique(scores[np.isfinite(scores)]).astype(np.float64)
    between = ((distinct[1:] + distinct[:-1]) / 2).astype(np.float32).astype(np.float64)
    between = np.where(between > distinct[:-1], between, distinct[1:])
    first = [low] if np.isfinite(low) else distinct[:1]
    return np.concatenate([first, between])[: len(distinct)]


def _subsets(early: int) -> list[tuple[int, ...]]:
    """The early exits that are run together. Of more than MOST_RUN, whose table no memory holds: so many
    and fewer of them, evenly spread, and each alone."""
    if early > MOST_RUN:
        spread = [tuple(_spread(early, size).tolist()) for size in range(MOST_RUN, 1, -1)]
        return [*spread, *((exit,) for exit in range(early))]
    sizes = range(early, 0, -1)
    return list(islice((s for n in sizes for s in combinations(range(early), n)), MOST_SUBSETS))


def _keep(exits: tuple[int, ...], losses: Floats, costs: Costs) -> _Kept:
    columns = [*exits, losses.shape[1] - 1]
    return _Kept(exits, losses[:, columns], np.array(costs.leaving(columns), dtype=np.float64))


def _spread(cuts: int, most: int) -> Ints:
    """At most `most` of the numbers below `cuts`, evenly."""
    return np.unique(np.linspace(0, max(cuts - 1, 0), min(cuts, most)).round().astype(int))


def totals(bins: Sequence[Ints], sizes: Sequence[int], values: Floats) -> Floats:
    """The sum over rows of the value where each leaves, for every combination of cuts: [sizes…].

    bins: for each of D exits how many of its cuts each row reaches, [N]; it leaves at cut p when its bin
    is above p. sizes: cuts of each exit, and one for never. values: [N, D+1], the last of leaving at
    none."""
    exits = len(bins)
    sums = np.zeros(sizes)
    for exit in range(exits + 1):
        axes = min(exit + 1, exits)
        shape = tuple(sizes[:axes])
        where = np.ravel_multi_index([bins[e] for e in range(axes)], shape)
        table = np.bincount(where, values[:, exit], int(np.prod(shape))).reshape(shape)
        for before in range(min(exit, exits)):
            table = table.cumsum(axis=before)  # rows that pass: bins up to the cut
        if exit < exits:  # rows that leave: bins above the cut
            table = table.sum(axis=exit, keepdims=True) - table.cumsum(axis=exit)
        sums += table.reshape(shape + (1,) * (exits - axes))
    return sums


def _refine(
    best: _Best, run: _Kept, setting: _Setting, level: int, scores: Floats, cuts: Sequence[Floats]
) -> None:
    """Search around a setting: each pair of its exits at a time, the others as they are."""
    early = len(run.exits)
    for pair in combinations(range(early), min(early, 2)):
        grid = []
        for at in pair:
            count = len(cuts[run.exits[at]])
            coarse = count / max(1, min(MOST_CUTS, int(CELLS ** (1 / early))) - 1)
            step = max(1, round(2 * coarse / NEAR ** (level + 1)))
            near = setting.cuts[at] + step * np.arange(-NEAR, NEAR + 1)
            grid.append(np.unique(near[(near >= 0) & (near < count)]))
        if all(len(chosen) for chosen in grid):
            _search(best, run, setting, pair, grid, scores, cuts)


def _search(
    best: _Best,
    run: _Kept,
    setting: _Setting,
    some: Sequence[int],
    grid: list[Ints],
    scores: Floats,
    cuts: Sequence[Floats],
) -> None:
    """Try every combination of the cuts in `grid`, for some exits that are run, the others as the
    setting has them: each row then has one place where it leaves if those let it pass, and none behind
    it."""
    rows, last = len(scores), len(run.exits)
    place = np.full(rows, last)
    for at in reversed(range(last)):
        all_cuts, exit = cuts[run.exits[at]], run.exits[at]
        if at not in some and setting.cuts[at] < len(all_cuts):
            place[scores[:, exit] >= all_cuts[setting.cuts[at]]] = at
    bins = []
    for at, chosen in zip(some, grid, strict=True):
        exit = run.exits[at]
        reached = np.searchsorted(cuts[exit][chosen], scores[:, exit], side="right")
        bins.append(np.where(place < at, 0, reached))
    columns = np.arange(rows)
    passed = run.losses[columns, place], run.macs[place]
    losses = np.column_stack([run.losses[:, list(some)], passed[0]])
    spent = np.column_stack([*(np.full(rows, run.macs[at]) for at in some), passed[1]])
    sizes = [len(chosen) + 1 for chosen in grid]
    choices = [np.array([cut]) for cut in setting.cuts]
    for at, chosen in zip(some, grid, strict=True):
        choices[at] = np.append(chosen, len(cuts[run.exits[at]]))
    _offer(best, run, choices, totals(bins, sizes, losses), totals(bins, sizes, spent))


def _offer(best: _Best, run: _Kept, choices: list[Ints], loss: Floats, macs: Floats) -> None:
    """Take from a table of settings what is better than the best so far. choices: the cuts along each
    of its axes."""
    shape = tuple(len(cuts) for cuts in choices)
    flat, spent = loss.reshape(-1), macs.reshape(-1)
    budget = np.searchsorted(best.budgets, spent - 1e-6)
    order = np.lexsort((spent, flat, budget))
    first = order[np.unique(budget[order], return_index=True)[1]]
    for cell in first:
        at = budget[cell]
        if at < len(best.budgets) and (flat[cell], spent[cell]) < (best.loss[at], best.macs[at]):
            where = np.unravel_index(cell, shape) if shape else ()
            chosen = tuple(int(cuts[i]) for cuts, i in zip(choices, where, strict=True))
            best.loss[at], best.macs[at] = flat[cell], spent[cell]
            best.settings[at] = _Setting(run.exits, chosen)
    for at in range(1, len(best.budgets)):  # what costs less serves the larger budgets too
        if (best.loss[at - 1], best.macs[at - 1]) < (best.loss[at], best.macs[at]):
            best.loss[at], best.macs[at] = best.loss[at - 1], best.macs[at - 1]
            best.settings[at] = best.settings[at - 1]


def _points(best: _Best, rows: int, count: int, cuts: Sequence[Floats]) -> tuple[OperatingPoint, ...]:
    points: dict[_Setting, OperatingPoint] = {}
    for at in reversed(range(len(best.budgets))):
        setting = best.settings[at]
        if setting is not None and setting not in points:
            thresholds: list[float | None] = [None] * count
            for exit, cut in zip(setting.exits, setting.cuts, strict=True):
                thresholds[exit] = float(cuts[exit][cut]) if cut < len(cuts[exit]) else None
            loss, macs = float(best.loss[at]) / rows, float(best.macs[at]) / rows
            points[setting] = OperatingPoint(tuple(thresholds), loss, macs)
    return tuple(points.values())
