from __future__ import annotations

import numpy as np

from offramp.analysis.exits import at_thresholds, confidence
from simulated import OF_FOUR_IMAGES

P = OF_FOUR_IMAGES
LOGITS = np.log(P)
LABELS = np.array([0, 0, 1, 1])
MACS, FULL = [30.0, 110.0], 100.0


def test_confidence_is_the_largest_probability() -> None:
    np.testing.assert_allclose(confidence(LOGITS), P.max(axis=2))


def test_shifted_and_huge_logits_are_handled() -> None:
    np.testing.assert_allclose(confidence(LOGITS + 1e3), P.max(axis=2))
    huge = np.array([[[3e38, -3e38]]], dtype=np.float32)
    assert confidence(huge).tolist() == [[1.0]]


def test_leaving_at_thresholds() -> None:
    # Exit 1 is sure of: all | all | images 1 and 3 | image 1 | none | none.
    before, thresholds = LOGITS.copy(), (0.0, 0.5, 0.75, 0.85, 0.95, 1.01)
    expected = [(0.5, 0.3), (0.5, 0.3), (1.0, 0.7), (1.0, 0.9), (1.0, 1.1), (1.0, 1.1)]
    found = at_thresholds(LOGITS, LABELS, MACS, FULL, thresholds)
    np.testing.assert_allclose(found, expected)
    assert np.array_equal(LOGITS, before)


def test_a_confidence_equal_to_the_threshold_leaves() -> None:
    assert at_thresholds(np.zeros((1, 2, 2)), np.array([0]), MACS, FULL, [0.5]) == [(1.0, 0.3)]


def test_a_single_exit_is_left_by_all() -> None:
    assert at_thresholds(LOGITS[:, 1:], LABELS, [100.0], FULL, [0.99]) == [(1.0, 1.0)]
