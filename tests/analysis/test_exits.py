from __future__ import annotations

import numpy as np
import pytest

from offramp.analysis.exits import accuracy, at_threshold, confidence, cross_entropy

P = np.array(
    [  # four images, two exits, two classes: probabilities
        [[0.9, 0.1], [0.8, 0.2]],
        [[0.4, 0.6], [0.7, 0.3]],
        [[0.2, 0.8], [0.1, 0.9]],
        [[0.55, 0.45], [0.3, 0.7]],
    ]
)
LOGITS = np.log(P)
LABELS = np.array([0, 0, 1, 1])
MACS, FULL = [30.0, 110.0], 100.0


def test_accuracy_by_exit() -> None:
    assert accuracy(LOGITS, LABELS).tolist() == [0.5, 1.0]


def test_cross_entropy_by_exit() -> None:
    by_hand = [-np.log([0.9, 0.4, 0.8, 0.45]).mean(), -np.log([0.8, 0.7, 0.9, 0.7]).mean()]
    np.testing.assert_allclose(cross_entropy(LOGITS, LABELS), by_hand)


def test_confidence_is_the_largest_probability() -> None:
    np.testing.assert_allclose(confidence(LOGITS), P.max(axis=2))


def test_shifted_and_huge_logits_are_handled() -> None:
    np.testing.assert_allclose(confidence(LOGITS + 1e3), P.max(axis=2))
    np.testing.assert_allclose(cross_entropy(LOGITS - 1e3, LABELS), cross_entropy(LOGITS, LABELS))
    huge = np.array([[[3e38, -3e38]]], dtype=np.float32)
    assert confidence(huge).tolist() == [[1.0]] and cross_entropy(huge, np.array([0])).tolist() == [0.0]


@pytest.mark.parametrize(
    ("threshold", "right", "leaving"),
    [
        # exit 1 is sure of: all | images 1 and 3 | image 1 | none
        (0.5, 2 / 4, (1.0, 0.0)),
        (0.75, 4 / 4, (0.5, 0.5)),
        (0.85, 4 / 4, (0.25, 0.75)),
        (0.95, 4 / 4, (0.0, 1.0)),
    ],
)
def test_leaving_at_a_threshold(threshold: float, right: float, leaving: tuple[float, ...]) -> None:
    point = at_threshold(LOGITS, LABELS, MACS, FULL, threshold)
    assert point.threshold == threshold and point.accuracy == right
    assert point.leaving == leaving and sum(point.leaving) == 1
    assert point.compute == pytest.approx((leaving[0] * 30 + leaving[1] * 110) / 100)


def test_a_confidence_equal_to_the_threshold_leaves() -> None:
    logits = np.zeros((1, 2, 2))
    assert at_threshold(logits, np.array([0]), MACS, FULL, 0.5).leaving == (1.0, 0.0)


def test_thresholds_of_zero_and_above_one_are_the_first_and_the_last_exit() -> None:
    assert at_threshold(LOGITS, LABELS, MACS, FULL, 0.0).accuracy == 0.5
    last = at_threshold(LOGITS, LABELS, MACS, FULL, 1.01)
    assert last.accuracy == 1.0 and last.leaving == (0.0, 1.0) and last.compute == pytest.approx(1.1)


def test_a_single_exit_is_left_by_all() -> None:
    point = at_threshold(LOGITS[:, 1:], LABELS, [100.0], FULL, 0.99)
    assert point.leaving == (1.0,) and point.compute == 1.0 and point.accuracy == 1.0


def test_the_arrays_are_left_as_they_are() -> None:
    before = LOGITS.copy()
    at_threshold(LOGITS, LABELS, MACS, FULL, 0.7)
    assert np.array_equal(LOGITS, before)
