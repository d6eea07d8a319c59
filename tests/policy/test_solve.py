from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longer import long
from offramp.policy import scoring, solve
from offramp.policy.candidates import SplitLogits, loss_of, where_left
from offramp.policy.costs import Costs
from offramp.policy.policy import Policy
from offramp.policy.quality import sweep
from simulated import COSTS, FOUR, simulated

Lists = list[tuple[float, float]]


def parts(rows: SplitLogits) -> tuple[np.ndarray, np.ndarray]:
    answers = scoring.answers(rows.logits)
    return scoring.scores("confidence", rows.logits), loss_of("wrong", answers, rows.labels)


def exhaustive(scores: np.ndarray, lost: np.ndarray, costs: Costs) -> Lists:
    """(macs, loss) of every setting, the slow way."""
    rows, count = lost.shape
    levels: list[list[float | None]] = []
    for exit in range(count - 1):
        distinct = sorted(set(scores[np.isfinite(scores[:, exit]), exit].tolist()))
        levels.append([None, *distinct])
    points = []
    for setting in product(*levels):
        active = [i for i, t in enumerate(setting) if t is not None] + [count - 1]
        macs = dict(zip(active, costs.leaving(active), strict=True))
        place = np.full(rows, count - 1)
        for exit in reversed(active[:-1]):
            place[scores[:, exit] >= setting[exit]] = exit
        spent = np.array([macs.get(i, 0) for i in range(count)])[place].mean()
        points.append((float(spent), float(lost[np.arange(rows), place].mean())))
    return points


def least(points: Lists, budget: float) -> float:
    return min((loss for macs, loss in points if macs <= budget + 1e-9), default=np.inf)


@pytest.mark.parametrize(("exits", "rows"), [(2, 60), (3, 40), *long((4, 18))])
def test_small_cases_are_solved_exactly(exits: int, rows: int) -> None:
    costs = Costs((10,) * exits, (2,) * exits, (0,) * exits, tuple(range(1, exits + 1)))
    for seed in range(3):
        scores, lost = parts(simulated(rows, seed, exits, classes=3))
        everything = exhaustive(scores, lost, costs)
        for point in solve.frontier(scores, lost, costs, points=40):
            assert point.loss == pytest.approx(least(everything, point.macs))


def test_larger_cases_come_near_exhaustive_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coarse grid of 5 cuts an exit where there are 18: what refinement makes of it."""
    monkeypatch.setattr(solve, "CELLS", 5**3)
    monkeypatch.setattr(solve, "NEAR", 3)
    gaps = []
    for seed in range(4):
        scores, lost = parts(simulated(18, 20 + seed, classes=3))
        everything = exhaustive(scores, lost, COSTS)
        for point in solve.frontier(scores, lost, COSTS, points=40):
            gaps.append(point.loss - least(everything, point.macs))
    assert min(gaps) > -1e-9 and np.mean(gaps) < 0.02 and max(gaps) <= 3 / 18


def test_it_does_better_than_one_shared_threshold() -> None:
    scores, lost = parts(simulated(2500, 7))
    shared = sweep(
        scores,
        lost == 0,
        COSTS.leaving(range(4)),
        np.unique(np.quantile(scores, np.linspace(0, 1, 1000))),
    )
    points = list(zip(shared.macs.tolist(), (1 - shared.accuracy).tolist(), strict=True))
    gains = [least(points, p.macs) - p.loss for p in solve.frontier(scores, lost, COSTS)]
    assert min(gains) >= -1e-9
    assert np.mean([g for g in gains if np.isfinite(g)]) > 0.01


def test_points_are_what_their_thresholds_come_to() -> None:
    rows = simulated(700, 8)
    scores, lost = parts(rows)
    points = solve.frontier(scores, lost, COSTS)
    assert points[0].macs <= COSTS.full
    for point in points:
        policy = Policy("confidence", FOUR, point.thresholds)
        leaves = policy.leaves(rows.logits)
        assert where_left(lost, leaves).mean() == pytest.approx(point.loss)
        assert np.array(policy.macs(COSTS))[leaves].mean() <= point.macs + 1e-9
    macs, lose = [p.macs for p in points], [p.loss for p in points]
    assert macs == sorted(set(macs), reverse=True) and lose == sorted(set(lose))


def test_an_exit_at_each_block_of_a_deep_network_is_solved_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No memory holds a table of the cuts of all of them, or a list of all of their subsets."""
    for early in (13, 18):
        subsets = solve._subsets(early)
        assert len(subsets) <= solve.MOST_SUBSETS and max(map(len, subsets)) <= solve.MOST_RUN
        assert {exit for subset in subsets for exit in subset} == set(range(early))
    monkeypatch.setattr(solve, "MOST_RUN", 3)
    monkeypatch.setattr(solve, "ROUNDS", 1)
    early, chance = 7, np.random.default_rng(0)
    costs = Costs((10,) * (early + 1), (1,) * (early + 1), (0,) * (early + 1), (*range(1, early + 2),))
    logits = chance.normal(0, 1, (40, early + 1, 3)).astype(np.float32)
    scores, lost = parts(SplitLogits(logits, chance.integers(0, 3, 40)))
    points = solve.frontier(scores, lost, costs, points=4)
    assert points[-1].macs < points[0].macs <= costs.full
    for point in points:
        assert sum(threshold is not None for threshold in point.thresholds) <= 3
        leaves = Policy("confidence", costs.exits, point.thresholds).leaves(logits)
        assert where_left(lost, leaves).mean() == pytest.approx(point.loss)


def test_the_full_network_is_the_first_point_where_leaving_can_only_lose() -> None:
    rows = simulated(200, 8)
    lost = loss_of("disagreement", scoring.answers(rows.logits), rows.labels)
    lost[:, :3] = 1
    point = solve.frontier(scoring.scores("confidence", rows.logits), lost, COSTS)[0]
    assert point.thresholds == (None,) * 4 and (point.loss, point.macs) == (0, COSTS.full)


def test_one_exit_has_one_policy() -> None:
    scores, lost = parts(simulated(50, 1, exits=1))
    costs = Costs((10,), (1,), (0,), (1,))
    assert solve.frontier(scores, lost, costs)[0].thresholds == (None,)


def test_rows_that_are_never_sure_stay() -> None:
    rows = simulated(80, 2)
    rows.logits[::2, :3, 0] = np.nan
    scores, lost = parts(rows)
    for point in solve.frontier(scores, lost, COSTS):
        leaves = scoring.leaves("confidence", rows.logits, point.thresholds)
        assert (leaves[::2] == 3).all()
        assert where_left(lost, leaves).mean() == pytest.approx(point.loss)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_cuts_tell_apart_all_scores(values: list[float]) -> None:
    scores = np.array(values, dtype=np.float32)
    cuts = solve.cut_points(scores)
    distinct = np.unique(scores)
    assert len(cuts) == len(distinct)
    assert (cuts.astype(np.float32) == cuts).all()
    for i, cut in enumerate(cuts):
        np.testing.assert_array_equal(distinct >= cut, np.arange(len(distinct)) >= i)


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_totals_are_the_sums_of_every_setting(seed: int, exits: int) -> None:
    draw = np.random.default_rng(seed)
    sizes = [int(draw.integers(2, 5)) for _ in range(exits)]
    bins = [draw.integers(0, size, 12) for size in sizes]
    values = draw.integers(0, 5, (12, exits + 1)).astype(float)
    sums = solve.totals(bins, sizes, values)
    for setting in np.ndindex(*sizes):
        total = 0.0
        for row in range(12):
            leaves = (e for e in range(exits) if bins[e][row] > setting[e])
            total += values[row, next(leaves, exits)]
        assert sums[setting] == total


@pytest.mark.parametrize("exits", [3, 4, 5])
def test_refinement_counts_rows_where_they_leave(monkeypatch: pytest.MonkeyPatch, exits: int) -> None:
    """Random scores and losses, and a coarse grid so coarse that all points come from refinement."""
    monkeypatch.setattr(solve, "CELLS", 2**exits)
    monkeypatch.setattr(solve, "NEAR", 4)
    costs = Costs((10,) * exits, (1,) * exits, (0,) * exits, tuple(range(1, exits + 1)))
    refined = 0
    for seed in range(5):
        draw = np.random.default_rng(seed)
        scores, lost = draw.random((40, exits)).astype(np.float32), draw.random((40, exits))
        for point in solve.frontier(scores, lost, costs, points=30):
            active = [i for i, t in enumerate(point.thresholds) if t is not None] + [exits - 1]
            place = np.full(40, exits - 1)
            for exit in reversed(active[:-1]):
                place[scores[:, exit] >= point.thresholds[exit]] = exit
            spent = dict(zip(active, costs.leaving(active), strict=True))
            assert point.loss == pytest.approx(where_left(lost, place).mean())
            assert point.macs >= np.mean([spent[int(i)] for i in place]) - 1e-9
            refined += len(active) > 2
    assert refined > 5
