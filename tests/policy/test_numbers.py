"""A policy of numbers alone: logits, labels and costs of any framework."""

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import offramp
from offramp import Costs, Policy
from simulated import deceiving
from wording import refusal

COSTS = [100, 400, 1_000]
ENDS: dict[str, Any] = {"max_accuracy_loss": 0.01}


def answers(images: int = 2_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, 3, 5] whose exits are ever surer, and labels [N]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, size=images)
    right = np.eye(5)[labels][:, None] * np.array([2.0, 4.0, 6.0])[:, None]
    return rng.normal(size=(images, 3, 5)) + right, labels


LOGITS, LABELS = answers()


def calibrated(**more: Any) -> Policy:
    numbers: dict[str, Any] = {"logits": LOGITS, "labels": LABELS, "costs": COSTS, **ENDS, **more}
    return offramp.calibrate(**numbers)


usual = cache(calibrated)  # to be read


def test_it_keeps_the_limit_on_images_that_it_has_not_seen() -> None:
    logits, labels = answers(20_000, seed=1)
    policy = usual()
    leaves = policy.leaves(logits)
    answered = np.take_along_axis(logits.argmax(2), leaves[:, None], 1)[:, 0]
    lost = (logits[:, -1].argmax(1) == labels).mean() - (answered == labels).mean()
    spent = np.array(COSTS)[leaves].mean()
    assert lost <= 0.012 and spent < 600
    assert policy.calibration.chosen is not None
    assert policy.calibration.chosen.mean_macs == pytest.approx(spent, rel=0.05)


@pytest.mark.parametrize(
    "limit",
    [
        {"risk": 0.05},
        {"risk": 0.05, "on_average": True},
        {"risk": 0.05, "without_labels": True},
        {"min_accuracy": 0.9},
        {"max_mean_macs": "40%"},
        {"max_disagreement": 0.05},
        {"max_accuracy_loss": 0.02, "score": "gate"},
        {"max_accuracy_loss": 0.02, "score": "patience"},
        {"max_accuracy_loss": 0.02, "temperature": True, "survivors": True},
    ],
    ids=str,
)
def test_every_kind_of_limit_and_score(limit: dict[str, Any]) -> None:
    policy = offramp.calibrate(logits=LOGITS, labels=LABELS, costs=COSTS, **limit)
    chosen = policy.calibration.chosen
    assert policy.score == limit.get("score", "confidence")
    assert chosen is not None and chosen.mean_macs is not None and chosen.mean_macs < COSTS[-1]


def test_arrays_of_any_kind_are_the_same_numbers(tmp_path: Path) -> None:
    policy = usual()
    by_exit = [torch.tensor(LOGITS[:, k], requires_grad=True) for k in range(3)]
    assert calibrated(logits=by_exit, labels=torch.tensor(LABELS)) == policy
    assert calibrated(labels=LABELS.tolist(), costs=np.array(COSTS)) == policy
    parts = Costs((100, 300, 600), (0, 0, 0), (0, 0, 0), (1, 2, 3))
    assert calibrated(costs=parts) == policy
    policy.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == policy


def test_dear_heads_count_only_where_they_are_asked() -> None:
    """With costs of parts, a policy may leave a head out; plain numbers include it."""
    parts = Costs((100, 300, 600), (900, 0, 0), (0, 0, 0), (1, 2, 3))
    assert calibrated(costs=parts).thresholds[0] is None
    assert usual().thresholds[0] is not None


def test_validation_of_ones_own() -> None:
    policy = calibrated(validation=answers(500, seed=2))
    assert policy.calibration.chosen is not None and policy.calibration.chosen.images == len(LABELS)
    half = usual().calibration.chosen
    assert half is not None and half.images == len(LABELS) // 2


BROKEN = LOGITS.copy()
BROKEN[:3, 1, 2] = np.nan
DRAWN = np.random.default_rng(3).normal(size=LOGITS.shape)
REFUSED: dict[str, dict[str, Any]] = {
    "chance": {"logits": DRAWN},
    "few": {"logits": LOGITS[:150], "labels": LABELS[:150]},
    "three": {"logits": LOGITS[:3], "labels": LABELS[:3]},
    "NaN": {"logits": BROKEN},
    "NaN-on-validation": {"validation": (BROKEN, LABELS)},
    "shapes": {"logits": [LOGITS[:, 0], LOGITS[:, 1, :4], LOGITS[:, 2]]},
    "one-exit-alone": {"logits": LOGITS[:, 0]},
    "exits-first": {"logits": LOGITS[:7].swapaxes(0, 1), "labels": LABELS[:7]},
    "words": {"logits": [["a"]]},
    "fewer-labels": {"labels": LABELS[:-1]},
    "labels-out-of-range": {"labels": LABELS + 1},
    "labels-as-words": {"labels": [["cat", "dog"]] * len(LABELS)},
    "labels-one-hot": {"labels": np.eye(5)[LABELS]},
    "costs-fall": {"costs": [100, 1_000, 400]},
    "costs-of-nothing": {"costs": [0, 400, 1_000]},
    "costs-in-billions": {"costs": [0.1, 0.4, 1.2]},
    "costs-as-shares": {"costs": [0.3, 0.6, 1.0]},
    "more-logits-than-costs": {"costs": [100, 400]},
    "parts-of-other-exits": {"costs": Costs((1, 1), (0, 0), (0, 0), (1, 2))},
    "validation-of-another-network": {"validation": (LOGITS[:, :2], LABELS)},
    "validation-of-several-labels": {"validation": (LOGITS, np.ones((len(LOGITS), 5), int))},
    "no-exits": {"logits": LOGITS[:, :0], "costs": []},
    "validation-alone": {"validation": LOGITS},
    "validation-of-the-same-images": {"validation": (LOGITS, LABELS)},
    "no-labels": {"labels": None},
    "a-trial-too": {"trial": "joint"},
    "time": {"max_accuracy_loss": None, "max_mean_latency": 0.1},
    "training-shares": {"training_shares": True},
    "two-limits": {"max_mean_macs": 100},
}


@pytest.mark.parametrize("changed", REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_together_is_refused(changed: dict[str, Any], snapshot: object) -> None:
    assert refusal(calibrated, **changed) == snapshot


def test_a_policy_of_other_classes_is_refused(snapshot: object) -> None:
    policy = usual()
    assert policy.leaves(LOGITS[:7]).shape == (7,)
    assert refusal(policy.leaves, LOGITS[:7, :, :4]) == snapshot
    by_hand = Policy("confidence", policy.exits, policy.thresholds)
    assert by_hand.leaves(LOGITS[:7, :, :4]).shape == (7,)  # which knows of no classes


def test_nothing_at_all_is_refused(snapshot: object) -> None:
    anything: Any = offramp.calibrate
    assert refusal(anything, max_accuracy_loss=0.1) == snapshot


def test_chance_can_be_had_anyway() -> None:
    assert calibrated(logits=DRAWN, anyway=True).exits == (1, 2, 3)


def test_what_speaks_against_numbers_is_a_warning() -> None:
    """As with a network: exits in reverse order, and probabilities in place of logits."""
    with pytest.warns(offramp.OfframpWarning, match="undertrained"):
        calibrated(logits=LOGITS[:, ::-1])
    odds = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    with pytest.warns(offramp.OfframpWarning, match="add up to 1"):
        calibrated(logits=odds)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrated()


def test_an_undertrained_backbone_is_told_in_a_refusal_which_ends_in_what_can_be_had(
    snapshot: object,
) -> None:
    """The first exit alone keeps the limit, and is named, not chosen. Control: images that do not
    deceive, of which it does not."""
    sure, apart = deceiving(200, 3, 5, False), deceiving(210, 3, 5, False)
    rows = deceiving(200, 3, 5, True)
    numbers = {"logits": rows.logits, "labels": rows.labels}
    more: dict[str, Any] = {"validation": (sure.logits, sure.labels)}
    assert refusal(calibrated, **numbers, **more) == snapshot
    with pytest.warns(offramp.OfframpWarning, match="undertrained"):
        assert calibrated(**numbers, **more, score="fixed").thresholds[0] is not None
    numbers = {"logits": apart.logits, "labels": apart.labels}
    assert refusal(calibrated, **numbers, **more, score="fixed") == snapshot


def test_a_budget_below_all_policies_ends_in_one_that_can_be_had() -> None:
    limit = {"max_accuracy_loss": None, "max_mean_macs": "5%"}
    said = refusal(calibrated, **limit)
    share = said.partition("max_mean_macs='")[2].removesuffix("')`")
    assert "takes at most" in said and share == "55%"
    assert calibrated(**{**limit, "max_mean_macs": share}).exits == (1, 2, 3)
