from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from offramp.policy import candidates, quality
from offramp.policy.candidates import SplitLogits, temperatures


def test_a_temperature_that_was_put_in_is_found() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(20_000, 2, 5)) * 2
    labels = np.array([draw.choice(5, p=p) for p in softmax(logits[:, 0], axis=1)])
    logits[:, 1] = logits[:, 0] * 3
    found = temperatures(SplitLogits(logits.astype(np.float32), labels))
    assert found == pytest.approx((1, 3), rel=0.05)


def test_odd_splits_have_a_temperature() -> None:
    logits, labels = np.array([[[9.0, 0.0]], [[0.0, 9.0]]]), np.array([0, 1])
    assert temperatures(SplitLogits(logits, labels))[0] == pytest.approx(candidates.COLDEST, rel=0.2)
    assert temperatures(SplitLogits(logits, 1 - labels))[0] == pytest.approx(candidates.WARMEST, rel=0.2)
    assert temperatures(SplitLogits(np.full((3, 2, 2), np.nan), np.zeros(3, int))) == (1.0, 1.0)


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
    found = [quality.share(int(k), 200) for k in draw.binomial(200, 0.03, 1000)]
    assert np.mean([s.low <= 0.03 <= s.high for s in found]) >= 0.95 - 0.021
    assert (quality.share(0, 10).low, quality.share(10, 10).high) == (0, 1)


@pytest.mark.parametrize(("lost", "gained"), [(0.0, 0.0), (0.03, 0.01), (0.2, 0.2)])
def test_intervals_of_losses_cover_and_are_never_empty(lost: float, gained: float) -> None:
    draw = np.random.default_rng(3)
    drawn = draw.multinomial(300, [lost, gained, 1 - lost - gained], 1000)
    found = [quality.difference(int(a), int(b), 300) for a, b, _ in drawn]
    assert np.mean([d.low <= lost - gained <= d.high for d in found]) >= 0.95 - 0.021
    assert min(d.high - d.low for d in found) > 0.01
