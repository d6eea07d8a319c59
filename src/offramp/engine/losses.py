"""The terms of a phase's loss, on logits and features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from offramp.engine.gates import Gating
from offramp.phase import (
    CE,
    EWC,
    KD,
    MSE,
    Features,
    Gated,
    Gates,
    Loss,
    SampleWeights,
    Survivors,
    Term,
    teachers,
)


def mean_of(several: Sequence[Tensor]) -> Tensor:
    """What one exit says, or several on average: of [B, C] each."""
    return several[0] if len(several) == 1 else torch.stack(tuple(several)).mean(0)


def distance(student: Tensor, teacher: Tensor, temperature: float, each: Tensor | None = None) -> Tensor:
    """τ²·KL(teacher ∥ student) of softened logits, both [B, C]; mean over the batch, sum over classes.
    each: [B], weights of images.

    The teacher is detached (paper Algorithm 5; Hinton et al. 2015 for τ²).
    """
    target = F.log_softmax(teacher.detach() / temperature, dim=1)
    guess = F.log_softmax(student / temperature, dim=1)
    if each is None:
        return temperature**2 * F.kl_div(guess, target, reduction="batchmean", log_target=True)
    found = F.kl_div(guess, target, reduction="none", log_target=True).sum(1)
    return temperature**2 * (found * each).mean()


def squared(student: Tensor, teacher: Tensor, each: Tensor | None = None) -> Tensor:
    """The squared difference of logits or features [B, C], mean over images and columns; the teacher is
    detached. each: [B], weights of images."""
    if each is None:
        return F.mse_loss(student, teacher.detach())
    return (F.mse_loss(student, teacher.detach(), reduction="none").mean(1) * each).mean()


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None,
    smoothing: float = 0.0,
    each: Tensor | None = None,
) -> Tensor:
    """Mean over the batch of each image's cross-entropy, times the weight of its class where weights
    are given. logits: [B, C]; labels: [B]; class_weights: [C]; smoothing: the share of each target that
    is spread evenly over the C classes (Szegedy et al., 2016), 0 to 1; each: [B], weights of images.

    The mean is over images, not over weights, so that a batch counts by its size whatever is in it.
    """
    if smoothing or each is not None:
        found = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        found = found if class_weights is None else found * class_weights[labels]
        return (found if each is None else found * each).mean()
    if class_weights is None:
        return F.cross_entropy(logits, labels)
    return F.cross_entropy(logits, labels, class_weights, reduction="sum") / len(labels)


def balanced(labels: Tensor, classes: int) -> Tensor:
    """Weights [C] float32 with which every class counts alike: N/(C·n), n its number of `labels` [N];
    zero for a class that has none. Over all labels they average 1 (if every class has some)."""
    counts = torch.bincount(labels, minlength=classes).double()
    return (len(labels) / (classes * counts)).where(counts > 0, 0.0).float()


def gate_loss(
    exits: Sequence[int], cost: float, logits: Mapping[int, Tensor], labels: Tensor, gating: Gating
) -> Tensor:
    """Binary cross-entropy of the gates of all but the last exit to whether an image's best exit is
    theirs or an earlier one, mean over images and gates. The best exit is that of least cross-entropy +
    cost · spent. Leaving counts (stays / leaves) times, over all gates of the batch."""
    with torch.no_grad():
        entropies = [F.cross_entropy(logits[k], labels, reduction="none") for k in exits]
        spent = torch.tensor([cost * gating.spent[k] for k in exits], device=labels.device)
        best = (torch.stack(entropies, dim=1) + spent).argmin(1)
        goal = (best[:, None] <= torch.arange(len(exits) - 1, device=labels.device)).float()
        ones = goal.sum()
        ratio = torch.where((ones > 0) & (ones < goal.numel()), (goal.numel() - ones) / ones, 1.0)
    said = torch.stack([gating.logits[k] for k in exits[:-1]], dim=1)
    return F.binary_cross_entropy_with_logits(said, goal, torch.where(goal > 0, ratio, 1.0))


@torch.no_grad()
def leaving(said: Sequence[Tensor | None], rows: Tensor) -> Tensor:
    """The probability [B, K] by gates that an image leaves at each exit: what its gate says, of what
    those before leave over. said: [B] logits of gates; None takes all that is left.  rows: [B]."""
    passed = torch.zeros_like(rows, dtype=torch.float32)
    found = []
    for each in said:
        own = torch.ones_like(passed) if each is None else torch.sigmoid(each)
        found.append(torch.minimum(own, 1 - passed).clamp(min=0))
        passed = passed + own
    return torch.stack(found, dim=1)


@torch.no_grad()
def sample_weights(
    kind: SampleWeights, logits: Sequence[Tensor], labels: Tensor, said: Sequence[Tensor | None] = ()
) -> Tensor:
    """What each image counts for at each exit: [B, K], 0 to 1; but for gates all 1 at the first. logits:
    [B, C] of each exit, in order; labels: [B]; said: of `leaving`, for gates. No gradient comes of it.

    >>> import torch
    >>> from offramp.phase import Unsolved
    >>> sure, unsure = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.1, 0.0]])
    >>> sample_weights(Unsolved(), [sure, unsure, unsure], torch.tensor([0])).tolist()
    [[1.0, 0.0, 0.0]]
    """
    if isinstance(kind, Gated):
        return leaving(said, labels)
    passed = [torch.ones_like(labels, dtype=torch.float32)]
    for each in logits[:-1]:
        probabilities = each.softmax(1)
        highest, answer = probabilities.max(1)
        if isinstance(kind, Survivors):
            stays = torch.sigmoid((kind.threshold - highest) / kind.width)
        elif kind.hard:
            stays = 1 - ((answer == labels) & (highest >= kind.threshold)).float()
        else:
            stays = 1 - probabilities.gather(1, labels[:, None])[:, 0]
        passed.append(passed[-1] * stays)
    return torch.stack(passed, dim=1)


@dataclass(frozen=True, eq=False)
class LossContext:
    """What some terms read beside logits and labels. class_weights: [C] and smoothing: of the
    cross-entropies; weights: of images, over the exits that answer; features: [B, D], adapted and to be
    learned, by term; gating: what the network's gates say, where the phase asks them; penalties: scalars
    by term."""

    class_weights: Tensor | None = None
    smoothing: float = 0.0
    weights: SampleWeights | None = None
    features: Mapping[Features, tuple[Tensor, Tensor]] = field(default_factory=dict)
    gating: Gating | None = None
    penalties: Mapping[EWC, Tensor] = field(default_factory=dict)


NOTHING = LossContext()


def objective(
    loss: Loss,
    logits: Mapping[int, Tensor],
    teacher: Mapping[int, Tensor],
    labels: Tensor,
    beside: LossContext = NOTHING,
) -> Tensor:
    """The phase's loss: the weighted sum of its terms, a scalar. logits and teacher: [B, C] by exit;
    labels: [B]."""
    weights, gating = beside.weights, beside.gating
    each: dict[int, Tensor] = {}
    if weights is not None:
        exits = sorted(logits)
        said = [] if gating is None else [gating.logits.get(k) for k in exits]
        found = sample_weights(weights, [logits[k] for k in exits], labels, said)
        each = dict(zip(exits, found.unbind(1), strict=True))

    def target(term: KD | MSE) -> Tensor:
        return mean_of([teacher[k] for k in teachers(term)])

    def value(term: Term) -> Tensor:
        match term:
            case Gates():
                assert gating is not None
                return gate_loss(term.exits, term.cost, logits, labels, gating)
            case EWC():
                return beside.penalties[term]
            case CE():
                student, counts = logits[term.exit], each.get(term.exit)
                return cross_entropy(student, labels, beside.class_weights, beside.smoothing, counts)
            case Features():
                adapted, wanted = beside.features[term]
                found = squared(adapted, wanted, each.get(term.exit))
                return found if term.over == "mean" else found * adapted.shape[1]
            case KD():
                return distance(logits[term.exit], target(term), term.temperature, each.get(term.exit))
            case MSE():
                return squared(logits[term.exit], target(term), each.get(term.exit))
            case _:
                assert_never(term)

    first, *rest = (term.weight * value(term) for term in loss)
    for more in rest:
        first = first + more
    return first
