"""Curves of accuracy against compute, image by image, from the definition."""

import numpy as np
import pytest

from offramp.analysis.tradeoff import NetAnswers, levels

MACS = (1.0, 3.0, 7.0, 10.0)


def drawn(rows: int = 400, digits: int = 2) -> NetAnswers:
    generator = np.random.default_rng(3)
    sure = np.round(generator.random((rows, 4)), digits)  # many scores are equal
    return NetAnswers(sure, generator.random((rows, 4)) < sure, MACS)


def at_threshold(actual: NetAnswers, threshold: float) -> tuple[float, float]:
    """Image by image."""
    spent, hits = 0.0, 0.0
    for sure, right in zip(actual.sure, actual.right, strict=True):
        leaves = next((k for k in range(3) if sure[k] >= threshold), 3)
        spent, hits = spent + MACS[leaves], hits + right[leaves]
    return spent / len(actual.right), hits / len(actual.right)


def test_the_curve_has_every_threshold() -> None:
    actual = drawn()
    thresholds, spent, hits = actual.curve
    assert thresholds[0] == np.inf and set(thresholds[1:]) <= set(actual.sure[:, :3].ravel())
    for threshold, *point in zip(thresholds, spent, hits, strict=True):
        assert tuple(point) == pytest.approx(at_threshold(actual, threshold))
    assert (np.diff(spent) < 0).all()
    assert (spent[-1], actual.cheapest) == (1.0, 1.0)


def test_accuracy_lies_on_the_line_between_thresholds() -> None:
    actual = drawn()
    _, spent, hits = actual.curve
    assert actual.accuracy((spent[4] + spent[5]) / 2) == pytest.approx((hits[4] + hits[5]) / 2)
    assert np.isnan(actual.accuracy(0.5))
    assert actual.accuracy(99.0) == hits[0]


def test_images_add_up_to_the_accuracy() -> None:
    actual = drawn(4000, 6)
    for macs in (1.5, 4.0, 8.0, 10.0, 12.0):
        assert actual.on_images(macs).mean() == pytest.approx(float(actual.accuracy(macs)), abs=1e-3)


def test_images_vary_as_the_accuracy_at_equal_compute_does() -> None:
    """Drawn again and again, thresholds anew each time: the spread is the one that images show."""
    actual = drawn(2000, 6)
    generator = np.random.default_rng(5)
    again = []
    for _ in range(400):
        rows = generator.integers(0, 2000, 2000)
        again.append(float(NetAnswers(actual.sure[rows], actual.right[rows], MACS).accuracy(4.0)))
    visible = actual.on_images(4.0).std() / np.sqrt(2000)
    assert visible == pytest.approx(np.std(again), rel=0.12)
    leaving = actual.sure >= actual.curve[0][int(np.argmax(actual.curve[1] <= 4.0))]
    leaving[:, -1] = True
    fixed = actual.right[np.arange(2000), leaving.argmax(axis=1)].std() / np.sqrt(2000)
    assert abs(fixed - np.std(again)) > abs(
        visible - np.std(again)
    )  # control: thresholds taken as fixed


def test_no_score_never_leaves() -> None:
    sure = np.array([[np.nan, 0.2], [0.9, 0.1]])
    actual = NetAnswers(sure, np.array([[True, False], [True, False]]), (1.0, 2.0))
    assert actual.curve[1].tolist() == [2.0, 1.5]


def test_levels_are_what_all_can_spend() -> None:
    assert levels([(1.0, 9.0), (2.0, 8.0)], 3) == (2.0, 5.0, 8.0)
    assert levels([(4.0, 9.0), (1.0, 2.0)]) == (2.0,)


def test_area_is_the_mean_accuracy_over_compute() -> None:
    actual = drawn()
    grid = np.linspace(2.0, 9.0, 200_001)
    assert actual.area(2.0, 9.0) == pytest.approx(float(actual.accuracy(grid).mean()), abs=1e-5)
    hits = actual.curve[2]
    whole = actual.area(0.5, 10.0)
    assert whole == pytest.approx((0.5 * hits[-1] + 9 * actual.area(1.0, 10.0)) / 9.5)
    assert np.isnan(actual.area(0.1, 0.9)) and np.isnan(actual.area(3.0, 3.0))
    assert actual.area(0.1, actual.cheapest) == pytest.approx(hits[-1])
