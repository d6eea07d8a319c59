"""The terms of a phase's loss, on logits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from offramp.phase import CE, KD, Loss


def distance(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """τ²·KL(teacher ∥ student) of softened logits, both [B, C]; mean over the batch, sum over classes.

    The teacher is detached (paper Algorithm 5; Hinton et al. 2015 for τ²).
    """
    target = F.log_softmax(teacher.detach() / temperature, dim=1)
    guess = F.log_softmax(student / temperature, dim=1)
    return temperature**2 * F.kl_div(guess, target, reduction="batchmean", log_target=True)


def cross_entropy(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None, smoothing: float = 0.0
) -> Tensor:
    """Mean over the batch of each image's cross-entropy, times the weight of its class where weights
    are given. logits: [B, C]; labels: [B]; class_weights: [C]; smoothing: the share of each target that
    is spread evenly over the C classes (Szegedy et al., 2016), 0 to 1.

    The mean is over images, not over weights, so that a batch counts by its size whatever is in it.
    """
    if smoothing:
        each = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        return (each if class_weights is None else each * class_weights[labels]).mean()
    if class_weights is None:
        return F.cross_entropy(logits, labels)
    return F.cross_entropy(logits, labels, class_weights, reduction="sum") / len(labels)


def balanced(labels: Tensor, classes: int) -> Tensor:
    """Weights [C] float32 with which every class counts alike: N/(C·n), n its number of `labels` [N];
    zero for a class that has none. Over all labels they average 1 (if every class has some)."""
    counts = torch.bincount(labels, minlength=classes).double()
    return (len(labels) / (classes * counts)).where(counts > 0, 0.0).float()


def term(
    kind: CE | KD,
    logits: Mapping[int, Tensor],
    teacher: Mapping[int, Tensor],
    labels: Tensor,
    class_weights: Tensor | None,
    smoothing: float = 0.0,
) -> Tensor:
    """One term without its weight: a scalar."""
    if isinstance(kind, CE):
        return cross_entropy(logits[kind.exit], labels, class_weights, smoothing)
    return distance(logits[kind.exit], teacher[kind.teacher_exit], kind.temperature)


def objective(
    loss: Loss,
    logits: Mapping[int, Tensor],
    teacher: Mapping[int, Tensor],
    labels: Tensor,
    class_weights: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """The phase's loss: the weighted sum of its terms, a scalar. logits and teacher: [B, C] by exit;
    labels: [B]; class_weights: [C] and smoothing: of the cross-entropies."""
    first, *rest = (t.weight * term(t, logits, teacher, labels, class_weights, smoothing) for t in loss)
    for value in rest:
        first = first + value
    return first
