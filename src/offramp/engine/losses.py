"""The terms of a phase's loss, on logits."""

from __future__ import annotations

from collections.abc import Mapping

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


def term(
    kind: CE | KD, logits: Mapping[int, Tensor], teacher: Mapping[int, Tensor], labels: Tensor
) -> Tensor:
    """One term without its weight: a scalar."""
    if isinstance(kind, CE):
        return F.cross_entropy(logits[kind.exit], labels)
    return distance(logits[kind.exit], teacher[kind.teacher_exit], kind.temperature)


def objective(
    loss: Loss, logits: Mapping[int, Tensor], teacher: Mapping[int, Tensor], labels: Tensor
) -> Tensor:
    """The phase's loss: the weighted sum of its terms, a scalar. logits and teacher: [B, C] by exit;
    labels: [B]."""
    first, *rest = (t.weight * term(t, logits, teacher, labels) for t in loss)
    for value in rest:
        first = first + value
    return first
