from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.stats import multinomial
from sklearn.metrics import roc_auc_score

from offramp.policy import quality, scoring
from offramp.policy.policy import Policy
from offramp.policy.quality import Difference, at_thresholds, oracle, paired, random_exit, sweep
from simulated import COSTS, FOUR, OF_FOUR_IMAGES, simulated

MACS = COSTS.leaving(range(4))
IMAGES, OF_IMAGES, TWO = np.log(OF_FOUR_IMAGES), np.array([0, 0, 1, 1]), [30.0, 110.0]


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55, np.nan])
    right = np.array([True, False, True, True, False])
    assert quality.calibration_error(confidence, right) == pytest.approx((0.45 + 0.45) / 2)
    assert quality.calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0
    assert quality.calibration_error(np.array([np.nan]), np.array([True])) is None


def test_auroc_is_that_of_scikit_learn() -> None:
    draw = np.random.default_rng(1)
    right = draw.random(500) < 0.7
    scores = np.round(draw.normal(size=500) + right, 1)  # with ties
    assert quality.auroc(scores, right) == pytest.approx(roc_auc_score(right, scores))
    assert quality.auroc(np.array([-np.inf, 0.5]), np.array([False, True])) == 1
    assert quality.auroc(scores, np.ones(500, bool)) is None


def test_intervals_of_shares_cover() -> None:
    draw = np.random.default_rng(2)
    interval = [quality.share(int(k), 200) for k in draw.binomial(200, 0.03, 1000)]
    assert np.mean([s.low <= 0.03 <= s.high for s in interval]) >= 0.95 - 0.021
    assert (quality.share(0, 10).low, quality.share(10, 10).high) == (0, 1)


def test_an_interval_of_a_loss_by_hand() -> None:
    """Of 21 patients one changed one way and seven the other (Bentur and others, 2009)."""
    interval = quality.difference(1, 7, 21)
    assert (interval.value, interval.low, interval.high) == pytest.approx(
        (-6 / 21, -0.508, -0.013), abs=5e-4
    )


@cache
def intervals(rows: int) -> tuple[Any, ...]:
    """Every pair of counts, its interval, and the two of its shares."""
    pairs = [(b, c) for b in range(31) for c in range(31) if b + c <= rows]
    ends = [quality.difference(b, c, rows) for b, c in pairs]
    half = [(quality.share(b, rows, 0.975), quality.share(c, rows, 0.975)) for b, c in pairs]
    return pairs, ends, half


@pytest.mark.parametrize("rows", [20, 50, 300])
@pytest.mark.parametrize("gained", [0.0, 0.1, 0.25, 0.5])  # of the answers that differ
@pytest.mark.parametrize("differing", [1, 4, 6, 10])  # on average
def test_an_interval_of_a_loss_covers_it_and_is_narrow(rows: int, gained: float, differing: int) -> None:
    """Exactly: every pair of counts with its chance. Where nothing is gained, and only there, it may
    fall two points short."""
    up, down = differing * gained / rows, differing * (1 - gained) / rows
    pairs, ends, half = intervals(rows)
    chances = multinomial.pmf([(b, c, rows - b - c) for b, c in pairs], rows, [down, up, 1 - down - up])
    coverage = sum(p for p, d in zip(chances, ends, strict=True) if d.low <= down - up <= d.high)
    assert coverage >= (0.95 if gained else 0.925)
    joined = sum(p * (b.high - b.low + c.high - c.low) for p, (b, c) in zip(chances, half, strict=True))
    assert sum(p * (d.high - d.low) for p, d in zip(chances, ends, strict=True)) < 0.75 * joined
    assert min(d.high - d.low for d in ends) > 3 / (rows + 4)


@pytest.mark.parametrize("name", ["confidence", "entropy", "margin", "patience"])
def test_a_sweep_is_each_policy(name: str) -> None:
    """One threshold for all exits, or one an exit."""
    rows, draw = simulated(200, 2), np.random.default_rng(0)
    levels = draw.integers(1, 4, (70, 3)) if name == "patience" else draw.random((70, 3))
    levels = np.linspace(0, 1, 130) if name == "confidence" else levels
    curve = sweep(scoring.scores(name, rows.logits), rows.right(), MACS, levels)
    for i, setting in enumerate(curve.thresholds):
        assert (setting == levels[i]).all()
        leaves = Policy(name, FOUR, (*map(float, setting), None)).leaves(rows.logits)
        assert curve.accuracy[i] == pytest.approx(rows.right()[np.arange(200), leaves].mean())
        assert curve.shares[i] == pytest.approx(np.bincount(leaves, minlength=4) / 200)
        assert curve.macs[i] == pytest.approx(np.take(MACS, leaves).mean())


def test_leaving_at_thresholds() -> None:
    # Exit 1 is sure of: all | all | images 1 and 3 | image 1 | none | none.
    before, thresholds = IMAGES.copy(), (0.0, 0.5, 0.75, 0.85, 0.95, 1.01)
    expected = [(0.5, 0.3), (0.5, 0.3), (1.0, 0.7), (1.0, 0.9), (1.0, 1.1), (1.0, 1.1)]
    points = at_thresholds(IMAGES, OF_IMAGES, TWO, 100.0, thresholds)
    np.testing.assert_allclose(points, expected)
    assert np.array_equal(IMAGES, before)
    # A confidence equal to the threshold leaves; a single exit is left by all.
    assert at_thresholds(np.zeros((1, 2, 2)), np.array([0]), TWO, 100.0, [0.5]) == [(1.0, 0.3)]
    assert at_thresholds(IMAGES[:, 1:], OF_IMAGES, [100.0], 100.0, [0.99]) == [(1.0, 1.0)]


def test_no_policy_beats_the_oracle_and_scores_beat_chance() -> None:
    rows = simulated(2000, 3)
    right = rows.right()
    curve = sweep(scoring.scores("margin", rows.logits), right, MACS, np.linspace(0, 1, 50))
    best = oracle(right, MACS)
    assert (curve.accuracy <= best.accuracy).all()
    middle = 25
    drawn = random_exit(right, [COSTS.leaving([i])[0] for i in range(4)], curve.shares[middle])
    assert drawn.accuracy < curve.accuracy[middle] - 0.02
    assert sum(best.shares) == pytest.approx(1)


def test_the_oracle_by_hand() -> None:
    right = np.array([[1, 1], [0, 1], [0, 0], [1, 0]], dtype=bool)
    bound = oracle(right, [1, 10])
    assert (bound.accuracy, bound.macs, bound.shares) == (0.75, 5.5, (0.5, 0.5))
    drawn = random_exit(right, [1, 10], [0.25, 0.75])
    assert (drawn.accuracy, drawn.macs) == (0.5, 7.75)


def test_failure_prediction_by_definition() -> None:
    """Of the surest i, how many are wrong: averaged over i, and over orders of equal scores."""
    draw = np.random.default_rng(4)
    right, scores = draw.random(60) < 0.6, np.round(draw.random(60), 1)
    area = []
    for _ in range(4000):
        order = np.lexsort((draw.random(60), -scores))
        area.append((np.cumsum(~right[order]) / np.arange(1, 61)).mean())
    assert quality.aurc(scores, right) == pytest.approx(np.mean(area), abs=0.002)
    assert quality.aurc(scores, np.ones(60, bool)) == 0
    assert quality.aurc(np.full(60, np.nan), right) == pytest.approx((~right).mean())
    some = np.array([np.nan, 0.9, 0.1]), np.array([False, True, True])
    assert quality.aurc(*some) == pytest.approx((0 + 0 + 1 / 3) / 3)  # what is no number is least sure


def test_a_calibrated_exit_may_find_no_mistake() -> None:
    """Calibration error and failure prediction are not the same: here one is perfect, the other not."""
    right = np.arange(1000) % 10 < 8
    flat, telling = np.full(1000, 0.8), np.where(right, 0.99, 0.6)
    assert quality.calibration_error(flat, right) == pytest.approx(0)
    assert quality.calibration_error(telling, right) > 0.1  # type: ignore[operator]
    assert quality.aurc(telling, right) < 0.03 < 0.2 == pytest.approx(quality.aurc(flat, right))


# Pairs


@pytest.mark.parametrize("pairs", [2, 3, 5, 40])
def test_the_interval_is_that_of_the_paired_t_test(pairs: int) -> None:
    generator = np.random.default_rng(pairs)
    a = generator.normal(0.8, 0.1, pairs)
    b = 0.5 * a + generator.normal(0.3, 0.05, pairs)
    difference = paired(a, b)
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert difference.pairs == pairs
    assert difference.mean == pytest.approx((a - b).mean())
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))


def test_pairs_by_hand() -> None:
    """Of one pair there is no interval, of equal differences one of no width."""
    forward, other = paired([3, 5], [1, 2]), paired([1, 2], [3, 5])
    assert forward.mean == 2.5 == -other.mean and forward.low == -(other.high or 0)
    assert paired([0.75], [0.5]) == Difference(0.25, None, None, 1)
    assert paired([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]) == Difference(1.0, 1.0, 1.0, 3)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])])
def test_lists_that_do_not_pair_are_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="equally long"):
        paired(a, b)
