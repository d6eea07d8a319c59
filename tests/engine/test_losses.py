"""Every loss against arithmetic written by hand in numpy, in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from syrupy.assertion import SnapshotAssertion
from torch import Tensor

from offramp.engine.losses import LossContext, balanced, distance, objective
from offramp.phase import CE, KD, MSE, Survivors
from offramp.strategies import STRATEGIES
from offramp.strategies.joint import loss_weights
from wording import refusal

B, C = 5, 3


def some_logits(seed: int, spread: float = 2.0) -> Tensor:
    """[B, C]."""
    return torch.randn(B, C, generator=torch.Generator().manual_seed(seed)) * spread


LABELS = torch.tensor([0, 2, 1, 2, 0])


def softmax(logits: Tensor, temperature: float = 1.0) -> np.ndarray:
    scaled = logits.detach().double().numpy() / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def cross_entropy(logits: Tensor) -> float:
    """−1/B Σ_b log p_b(label of b)."""
    picked = softmax(logits)[np.arange(B), LABELS.numpy()]
    return float(-np.log(picked).mean())


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """τ² · 1/B Σ_b Σ_c q log(q / p), with q the teacher's and p the student's softened outputs."""
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    return float(temperature**2 * (q * np.log(q / p)).sum(axis=1).mean())


def test_cross_entropy_is_a_mean_over_the_batch_and_not_over_classes() -> None:
    logits = some_logits(1)
    loss = objective((CE(1),), {1: logits}, {}, LABELS).item()
    assert loss == pytest.approx(cross_entropy(logits), rel=1e-6)
    assert loss != pytest.approx(cross_entropy(logits) / C, rel=0.1)  # eq. 2 as printed


@pytest.mark.parametrize("temperature", [1.0, 3.0, 7.5])
def test_distillation_is_a_softened_divergence_times_the_squared_temperature(temperature: float) -> None:
    student, teacher = some_logits(3), some_logits(4, spread=1.0)
    loss = distance(student, teacher, temperature).item()
    expected = divergence(student, teacher, temperature)
    assert loss == pytest.approx(expected, rel=1e-5)
    # What is easily written instead, and is none of it.
    assert loss != pytest.approx(expected / C, rel=0.01)  # a mean over the classes as well
    assert loss != pytest.approx(divergence(teacher, student, temperature), rel=0.01)  # reversed
    if temperature != 1:
        assert loss != pytest.approx(expected / temperature**2, rel=0.01)  # without τ²
        assert loss != pytest.approx(divergence(student, teacher, 1.0), rel=0.01)  # not softened


def test_equal_logits_have_no_distance() -> None:
    assert distance(some_logits(1), some_logits(1), 3.0).item() == pytest.approx(0, abs=1e-6)


def test_an_objective_is_the_weighted_sum_of_its_terms() -> None:
    logits = {k: some_logits(k) for k in (1, 2, 3)}
    teacher = {3: some_logits(9)}
    terms = (CE(1, weight=0.1), KD(1, teacher_exit=3, temperature=3.0, weight=0.9), CE(3, weight=0.5))
    expected = (
        0.1 * cross_entropy(logits[1])
        + 0.9 * divergence(logits[1], teacher[3], 3.0)
        + 0.5 * cross_entropy(logits[3])
    )
    assert objective(terms, logits, teacher, LABELS).item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_that_of_the_softened_outputs() -> None:
    """d/dz of τ²·KL is τ (p − q) / B: without τ² it would vanish with the temperature."""
    student, teacher, t = some_logits(1).requires_grad_(), some_logits(2), 3.0
    distance(student, teacher, t).backward()
    assert student.grad is not None
    expected = t * (softmax(student, t) - softmax(teacher, t)) / B
    assert np.allclose(student.grad.numpy(), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("weights", [None, Survivors(0.5, 0.1)], ids=["all alike", "by image"])
@pytest.mark.parametrize("term", [KD(1, teacher_exit=2), MSE(1, teacher_exit=2)], ids=["KD", "MSE"])
def test_no_gradient_reaches_the_teacher(term: KD | MSE, weights: Survivors | None) -> None:
    student, teacher = some_logits(1).requires_grad_(), some_logits(2).requires_grad_()
    context = LossContext(weights=weights)
    loss = objective((CE(1), term), {1: student}, {2: teacher}, LABELS, context)
    loss.backward()
    assert student.grad is not None and student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_the_teacher_is_detached_by_the_loss_and_not_by_its_caller() -> None:
    """The control: the same divergence without the detachment does reach it."""
    student, teacher, t = some_logits(1).requires_grad_(), some_logits(2).requires_grad_(), 3.0
    guess, target = F.log_softmax(student / t, 1), F.log_softmax(teacher / t, 1)
    F.kl_div(guess, target, reduction="batchmean", log_target=True).backward()
    assert teacher.grad is not None and teacher.grad.abs().sum() > 0


def test_large_logits_stay_finite() -> None:
    hot = torch.tensor([[1e4, -1e4, 0.0]] * B)
    assert torch.isfinite(distance(-hot, hot, 3.0)) and torch.isfinite(distance(hot, hot, 3.0))


@pytest.mark.parametrize("exits", [1, 2, 4, 7])
def test_joint_weight_schemes(exits: int) -> None:
    linear = loss_weights("linear", exits)
    assert linear[-1] == 1.0 and (exits == 1 or linear[0] == 0.3)
    assert np.allclose(np.diff(linear), 0.7 / max(exits - 1, 1))
    paper = loss_weights("eq3", exits)
    triangle = exits * (exits + 1) / 2  # over N + 1 exits, the final one included
    assert paper == pytest.approx([n / triangle for n in range(1, exits + 1)])
    assert sum(paper) == pytest.approx(1)
    assert loss_weights("uniform", exits) == (1.0,) * exits
    own = tuple(float(n) for n in range(exits))
    assert loss_weights(own, exits) == own


def test_joint_weights_that_do_not_fit_are_refused(snapshot: SnapshotAssertion) -> None:
    assert refusal(loss_weights, (1.0, 1.0), 4) == snapshot


@pytest.mark.parametrize("scheme", ["linear", "eq3"])
def test_the_joint_objective_by_hand(scheme: str) -> None:
    logits = {k: some_logits(k) for k in range(1, 5)}
    (phase,) = STRATEGIES["joint"](4, joint_weights=scheme)
    weights = {"linear": [0.3, 0.3 + 0.7 / 3, 0.3 + 1.4 / 3, 1.0], "eq3": [0.1, 0.2, 0.3, 0.4]}[scheme]
    expected = sum(w * cross_entropy(logits[k]) for k, w in enumerate(weights, start=1))
    assert objective(phase.terms, logits, {}, LABELS).item() == pytest.approx(expected, rel=1e-5)


def test_the_distillation_objective_by_hand() -> None:
    student, teacher = some_logits(1), some_logits(2)
    phases = STRATEGIES["distillation"](4)
    loss = objective(phases[1].terms, {1: student}, {4: teacher}, LABELS).item()
    expected = 0.1 * cross_entropy(student) + 0.9 * divergence(student, teacher, 3.0)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_balanced_weights_make_classes_count_alike() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights = balanced(labels, 4)
    assert weights.tolist() == pytest.approx([10 / 24, 10 / 12, 10 / 4, 0])
    whole = balanced(labels, 3)
    assert float(whole[labels].mean()) == pytest.approx(1)
    assert [float(whole[labels[labels == c]].sum()) for c in range(3)] == pytest.approx([10 / 3] * 3)


def test_weighted_cross_entropy_is_a_mean_over_images() -> None:
    logits, weights = some_logits(1), torch.tensor([0.5, 2.0, 3.0])
    logs = -np.log(softmax(logits)[np.arange(B), LABELS.numpy()])
    expected = float((logs * weights.numpy()[LABELS.numpy()]).mean())
    teacher = {4: some_logits(2)}
    alone = objective((CE(1),), {1: logits}, {}, LABELS, LossContext(weights)).item()
    assert alone == pytest.approx(expected, rel=1e-6)
    both = (CE(1, 0.1), KD(1, 4, 3.0, 0.9))
    loss = objective(both, {1: logits}, teacher, LABELS, LossContext(weights)).item()
    distilled = divergence(logits, teacher[4], 3.0)
    assert loss == pytest.approx(0.1 * expected + 0.9 * distilled, rel=1e-5)  # classes weigh in CE alone
    # A batch counts by its size, whatever classes are in it.
    halves = [(logits[:2], LABELS[:2]), (logits[2:], LABELS[2:])]
    parts = [len(y) * objective((CE(1),), {1: x}, {}, y, LossContext(weights)).item() for x, y in halves]
    assert sum(parts) / B == pytest.approx(expected, rel=1e-6)


def test_without_weights_nothing_changes() -> None:
    logits = some_logits(1)
    ones = objective((CE(1),), {1: logits}, {}, LABELS, LossContext(torch.ones(C)))
    assert torch.equal(objective((CE(1),), {1: logits}, {}, LABELS), F.cross_entropy(logits, LABELS))
    assert ones.item() == pytest.approx(F.cross_entropy(logits, LABELS).item(), rel=1e-6)


def smoothed(logits: Tensor, share: float, weights: np.ndarray) -> float:
    """−1/B Σ_b w(label of b) Σ_c t_bc log p_bc, with t = (1 − ε)·onehot + ε/C."""
    targets = (1 - share) * np.eye(C)[LABELS.numpy()] + share / C
    each = -(targets * np.log(softmax(logits))).sum(axis=1)
    return float((each * weights[LABELS.numpy()]).mean())


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0]])
def test_label_smoothing_spreads_a_share_of_every_target(weights: list[float] | None) -> None:
    logits, share = some_logits(5), 0.1
    class_weights = None if weights is None else torch.tensor(weights)
    loss = objective((CE(1),), {1: logits}, {}, LABELS, LossContext(class_weights, share)).item()
    used = np.ones(C) if weights is None else np.array(weights)
    assert loss == pytest.approx(smoothed(logits, share, used), rel=1e-6)
    assert loss != pytest.approx(smoothed(logits, 0.0, used), rel=1e-3)


def test_distillation_is_not_smoothed() -> None:
    term = KD(1, teacher_exit=2, temperature=3.0)
    logits, teacher = {1: some_logits(6)}, {2: some_logits(7)}
    plain = objective((term,), logits, teacher, LABELS)
    assert torch.equal(objective((term,), logits, teacher, LABELS, LossContext(smoothing=0.3)), plain)
