"""The terms of a phase's loss, on logits and features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from offramp.errors import OfframpError, kind_of, shortened
from offramp.inputs import check_numbers
from offramp.nets.network import ExitNetwork, exit_macs, inside
from offramp.phase import (
    CE,
    KD,
    MSE,
    Features,
    Gated,
    Gates,
    Loss,
    Phase,
    SampleWeights,
    Survivors,
    Term,
    Unsolved,
    students,
    teachers,
)
from offramp.units import ranges


def mean_of(several: Sequence[Tensor]) -> Tensor:
    """What exits say on average, of [B, C] each."""
    return several[0] if len(several) == 1 else torch.stack(tuple(several)).mean(0)


def distance(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    image_weights: Tensor | None = None,
    several: bool = False,
) -> Tensor:
    """τ²·KL(teacher ∥ student) of softened logits, mean over the batch, sum over classes.

    Of several labels it is between the sigmoids of each, mean over labels: the binary cross-entropy with
    the teacher's softened sigmoid as target, less what it is at best, so that it has the same gradient.

    The teacher is detached (paper Algorithm 5; Hinton et al. 2015 for τ²).

    Args:
        student, teacher: Logits [B, C].
        temperature: τ.
        image_weights: [B].
    """
    if several:
        taught = teacher.detach() / temperature
        least = binary_entropies(taught, taught.sigmoid())
        losses = (binary_entropies(student / temperature, taught.sigmoid()) - least).mean(1)
        return temperature**2 * (losses if image_weights is None else losses * image_weights).mean()
    target = F.log_softmax(teacher.detach() / temperature, dim=1)
    guess = F.log_softmax(student / temperature, dim=1)
    if image_weights is None:
        return temperature**2 * F.kl_div(guess, target, reduction="batchmean", log_target=True)
    by_image = F.kl_div(guess, target, reduction="none", log_target=True).sum(1)
    return temperature**2 * (by_image * image_weights).mean()


def squared(student: Tensor, teacher: Tensor, image_weights: Tensor | None = None) -> Tensor:
    """The squared difference of logits or features [B, C], mean over images and columns; the teacher is
    detached. image_weights: [B]."""
    if image_weights is None:
        return F.mse_loss(student, teacher.detach())
    return (F.mse_loss(student, teacher.detach(), reduction="none").mean(1) * image_weights).mean()


def binary_entropies(logits: Tensor, labels: Tensor, positive_weights: Tensor | None = None) -> Tensor:
    """The binary cross-entropy of each label of each image, [B, C]. labels: [B, C], 0 to 1;
    positive_weights: [C], what a label counts for where an image has it."""
    weights = positive_weights
    return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights, reduction="none")


def cross_entropies(logits: Tensor, labels: Tensor, several: bool) -> Tensor:
    """Of each image, [B]; of several labels the mean of their binary ones."""
    if several:
        return binary_entropies(logits, labels).mean(1)
    return F.cross_entropy(logits, labels, reduction="none")


def right(logits: Tensor, labels: Tensor, several: bool) -> Tensor:
    """Whether the answer to each image is right, [B]; of several labels all of them."""
    return ((logits > 0) == (labels > 0.5)).all(1) if several else logits.argmax(1) == labels


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None,
    smoothing: float = 0.0,
    image_weights: Tensor | None = None,
    several: bool = False,
) -> Tensor:
    """The mean over the batch of each image's cross-entropy, times the weight of its class.

    The mean is over images, not over weights, so that a batch counts by its size whatever is in it.

    Args:
        logits: [B, C].
        labels: [B]; or [B, C], the share of each class: the loss is then the mean of those of the
            classes.
        class_weights: [C]; of several labels what each counts for where an image has it.
        smoothing: The share of each target that is spread evenly over the C classes (Szegedy et al.,
            2016), 0 to 1; of several labels evenly over yes and no.
        image_weights: [B].
        several: Whether an image has several labels, [B, C] from 0 to 1: the mean over them of their
            binary cross-entropies.
    """
    if several:
        labels = torch.lerp(labels, torch.full_like(labels, 0.5), smoothing) if smoothing else labels
        losses = binary_entropies(logits, labels, class_weights).mean(1)
        return (losses if image_weights is None else losses * image_weights).mean()
    if labels.is_floating_point():
        by_class = -F.log_softmax(logits, dim=1)
        if smoothing:
            by_class = torch.lerp(by_class, by_class.mean(1, keepdim=True), smoothing)
        by_class = by_class if class_weights is None else by_class * class_weights
        losses = (labels * by_class).sum(1)
        return (losses if image_weights is None else losses * image_weights).mean()
    if smoothing or image_weights is not None:
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        losses = losses if class_weights is None else losses * class_weights[labels]
        return (losses if image_weights is None else losses * image_weights).mean()
    if class_weights is None:
        return F.cross_entropy(logits, labels)
    return F.cross_entropy(logits, labels, class_weights, reduction="sum") / len(labels)


def check_settings(class_weights: Any, smoothing: Any, classes: int) -> None:
    """Raises OfframpError for class weights and a label smoothing that cross-entropies cannot have."""
    if not isinstance(smoothing, int | float) or not 0 <= smoothing < 1:
        raise OfframpError(f"label_smoothing must be from 0 to below 1, got {smoothing!r}")
    if class_weights is None or torch.compiler.is_compiling():
        return
    what = kind_of(class_weights)
    if isinstance(class_weights, Tensor):
        check_numbers(class_weights, "class_weights")
        good = class_weights.shape == (classes,) and class_weights.is_floating_point()
        if good and (not class_weights.is_cpu or bool((class_weights >= 0).all())):
            return
        what = f"{list(class_weights.shape)} {str(class_weights.dtype).removeprefix('torch.')}"
        what += ", some below 0 or no numbers" if good else ""
    raise OfframpError(f"class_weights are {what}; give floats of 0 or more, a tensor [{classes}]")


ROUNDED = 0.01  # what shares of bfloat16 may add up to beside 1


def check_labels(labels: Tensor, rows: int, classes: int, several: bool = False) -> Tensor:
    """Labels of the user as losses take them: int64 [B], or floats [B, C]. rows: B; classes: C; several:
    whether an image has several labels, [B, C] from 0 to 1.

    Raises:
        OfframpError: They are of another shape, or of no class (which is looked at on a CPU alone, as it
            would have to wait for another device).
    """
    if not isinstance(labels, Tensor):
        raise OfframpError(f"the labels are {kind_of(labels)}; give a tensor")
    if not torch.compiler.is_compiling():
        check_numbers(labels, "the labels")
    soft = labels.is_floating_point()
    if several:
        if labels.shape != (rows, classes):
            raise OfframpError(
                f"the labels are {list(labels.shape)}; give {[rows, classes]}, 0 or 1 for each label "
                "that an image has"
            )
        labels = labels.float()
        if labels.is_cpu and labels.numel() and not torch.compiler.is_compiling():
            low, high = (float(bound) for bound in labels.aminmax())
            if not 0 <= low <= high <= 1:
                raise OfframpError(
                    f"the labels go from {low:g} to {high:g}; give 0 or 1 for each label, or what mixup "
                    "makes of them"
                )
        return labels
    if labels.shape != ((rows, classes) if soft else (rows,)) or labels.dtype == torch.bool:
        kind = str(labels.dtype).removeprefix("torch.")
        raise OfframpError(
            f"the labels are {list(labels.shape)} {kind}; give [{rows}] class numbers, or "
            f"{[rows, classes]} floats, the share of each class"
        )
    if not labels.is_cpu or not len(labels) or torch.compiler.is_compiling():
        return labels if soft else labels.long()
    if soft:
        off = (labels.detach().sum(1, dtype=torch.float32) - 1).abs()
        if not bool((labels >= 0).all() and (off <= ROUNDED).all()):
            raise OfframpError(
                "the labels are floats that are no shares of classes: an image's must be at least 0 and "
                f"add up to 1; give such, or [{rows}] class numbers"
            )
    else:
        low, high = (int(bound) for bound in labels.aminmax())
        if low < 0 or high >= classes:
            raise OfframpError(
                f"a label is {low if low < 0 else high}, and there are classes 0 to "
                f"{classes - 1}; leave images without a known label out of the batch"
            )
    return labels if soft else labels.long()


def balanced(labels: Tensor, classes: int) -> Tensor:
    """Weights [C] float32 with which every class counts alike: N/(C·n), n its number of `labels` [N];
    zero for a class that has none. Over all labels they average 1 (if every class has some). Of several
    labels an image, [N, C]: (N - n)/n, with which a label's images count as much as all others; 1 where
    all or none have it."""
    if labels.dim() == 2:
        have = labels.double().sum(0)
        return ((len(labels) - have) / have).where((have > 0) & (have < len(labels)), 1.0).float()
    # In float64, since N may be larger than float32 counts exactly.
    counts = torch.bincount(labels, minlength=classes).double()
    return (len(labels) / (classes * counts)).where(counts > 0, 0.0).float()


# Gates


@dataclass(frozen=True, eq=False)
class Gating:
    """What the gates of a network answer while they train (JEI-DNN, arXiv 2310.09163)."""

    logits: Mapping[int, Tensor]  # [B] of the gate of each early exit: above 0 it would leave
    # MACs of an image that leaves at each exit, all heads before it run, as a share of those at the last
    # exit; 0 to 1
    spent: Mapping[int, float]


@torch.no_grad()
def statistics(logits: Tensor) -> Tensor:
    """`offramp.policy.scoring.statistics` of finite logits: [B, C] → [B, 4]."""

    def certainty(odds: Tensor) -> Tensor:
        entropy: Tensor = torch.special.entr(odds).sum(1)
        return (1 - entropy / math.log(odds.shape[1])).clamp(min=0)

    odds = logits.softmax(1)
    first, second = odds.topk(2, dim=1).values.unbind(1)
    sharper = (2 * logits).softmax(1)
    return torch.stack([first, certainty(odds), first - second, certainty(sharper)], dim=1)


def spent_at(net: ExitNetwork, exits: Sequence[int]) -> dict[int, float]:
    """What an image costs that leaves at each of `exits`, as a `Gating` has it."""
    whole = exit_macs(net, exits)
    return {k: exit_macs(net, exits[: i + 1]) / whole for i, k in enumerate(exits)}


def gating(
    net: ExitNetwork, logits: Mapping[int, Tensor], spent: Mapping[int, float] | None = None
) -> Gating:
    """The gates' answers to logits [B, C] by exit; no gradient goes back to these. spent: of
    `spent_at`, where that is at hand."""
    gates = {}
    for exit, own in logits.items():
        gate = inside(net).heads[exit - 1].gate if exit < net.exits else None
        if gate is not None:  # by single products: float32 whatever the precision
            gates[exit] = (statistics(own) * gate.weight[0]).sum(1) + gate.bias
    return Gating(gates, spent_at(net, sorted(logits)) if spent is None else spent)


def gate_loss(
    exits: Sequence[int], cost: float, logits: Mapping[int, Tensor], labels: Tensor, gating: Gating
) -> Tensor:
    """The binary cross-entropy of gates to whether an image's best exit is theirs or an earlier one.

    The best exit is that of least cross-entropy + cost · spent. Leaving counts (stays / leaves) times,
    over all gates of the batch. The mean over images and gates, a scalar.

    Args:
        exits: All but the last have gates that learn.
        cost: Of running the whole network.
        logits: [B, C] by exit.
        labels: [B] or [B, C].
    """
    with torch.no_grad():
        entropies = [F.cross_entropy(logits[k], labels, reduction="none") for k in exits]
        spent = torch.tensor([cost * gating.spent[k] for k in exits], device=labels.device)
        best = (torch.stack(entropies, dim=1) + spent).argmin(1)
        leaves = (best[:, None] <= torch.arange(len(exits) - 1, device=labels.device)).float()
        count = leaves.sum()
        both = (count > 0) & (count < leaves.numel())
        ratio = torch.where(both, (leaves.numel() - count) / count, 1.0)
    answers = torch.stack([gating.logits[k] for k in exits[:-1]], dim=1)
    return F.binary_cross_entropy_with_logits(answers, leaves, torch.where(leaves > 0, ratio, 1.0))


# What images count for


@torch.no_grad()
def leaving(gates: Sequence[Tensor | None], labels: Tensor) -> Tensor:
    """The probability [B, K] by gates that an image leaves at each exit: what its gate says, at most
    what those before leave over. gates: [B] logits of each exit's; None takes all that is left. labels:
    of the batch, for its size."""
    passed = torch.zeros(len(labels), dtype=torch.float32, device=labels.device)
    shares = []
    for gate in gates:
        own = torch.ones_like(passed) if gate is None else torch.sigmoid(gate)
        shares.append(torch.minimum(own, 1 - passed).clamp(min=0))
        passed = passed + own
    return torch.stack(shares, dim=1)


@torch.no_grad()
def sample_weights(
    kind: SampleWeights,
    logits: Sequence[Tensor],
    labels: Tensor,
    gates: Sequence[Tensor | None] = (),
    several: bool = False,
) -> Tensor:
    """What each image counts for at each exit: [B, K], 0 to 1; but for gates all 1 at the first.

    No gradient comes of it.

    Args:
        kind: Of the phase.
        logits: [B, C] of each exit, in order.
        labels: [B] or [B, C].
        gates: See `leaving`; for `Gated` alone.
        several: Whether an image has several labels: its probability is then that of the least sure one,
            and the true class that all are as they should be.

    >>> import torch
    >>> from offramp.phase import Unsolved
    >>> sure, unsure = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.1, 0.0]])
    >>> sample_weights(Unsolved(), [sure, unsure, unsure], torch.tensor([0])).tolist()
    [[1.0, 0.0, 0.0]]
    """
    if isinstance(kind, Gated):
        return leaving(gates, labels)
    passed = [torch.ones(len(labels), dtype=torch.float32, device=labels.device)]
    for own in logits[:-1]:
        if several:
            yes = own.sigmoid()
            confidence = torch.maximum(yes, 1 - yes).amin(1)
            solved = right(own, labels, several).float()
            truly = (-binary_entropies(own, labels).sum(1)).exp()
        else:
            probabilities = own.softmax(1)
            confidence, answer = probabilities.max(1)
            soft = labels.is_floating_point()
            true = probabilities * labels if soft else probabilities.gather(1, labels[:, None])
            solved, truly = _share_of(answer, labels), true.sum(1)
        match kind:
            case Survivors():
                stays = torch.sigmoid((kind.threshold - confidence) / kind.width)
            case Unsolved(hard=True):
                stays = 1 - solved * (confidence >= kind.threshold).float()
            case Unsolved():
                stays = 1 - truly
            case _:
                assert_never(kind)
        passed.append(passed[-1] * stays)
    return torch.stack(passed, dim=1)


def _share_of(answers: Tensor, labels: Tensor) -> Tensor:
    """How much of each label [B] or [B, C] is of the class [B] that is answered, 0 to 1."""
    if labels.is_floating_point():
        return labels.gather(1, answers[:, None])[:, 0]
    return (answers == labels).float()


# The loss of a phase


@dataclass(frozen=True, eq=False)
class LossContext:
    """What some terms read beside logits and labels."""

    class_weights: Tensor | None = None  # [C], of the cross-entropies
    smoothing: float = 0.0  # of the cross-entropies, 0 to 1
    weights: SampleWeights | None = None  # of images, over the exits that answer
    # by term, the adapted features and those that they learn, [B, D] each
    features: Mapping[Features, tuple[Tensor, Tensor]] = field(default_factory=dict)
    gating: Gating | None = None  # what the network's gates answer, where the phase has some
    several: bool = False  # whether an image has several labels


def objective(
    loss: Loss,
    logits: Mapping[int, Tensor],
    teacher: Mapping[int, Tensor],
    labels: Tensor,
    context: LossContext | None = None,
) -> Tensor:
    """The phase's loss: the weighted sum of its terms, a scalar. logits, teacher: [B, C] by exit;
    labels: [B], or [B, C] of the share of each class, or of several labels."""
    context = context or LossContext()
    gating = context.gating
    image_weights: dict[int, Tensor] = {}
    if context.weights is not None:
        exits = sorted(logits)
        gates = [] if gating is None else [gating.logits.get(k) for k in exits]
        mine = [logits[k] for k in exits]
        by_exit = sample_weights(context.weights, mine, labels, gates, context.several)
        image_weights = dict(zip(exits, by_exit.unbind(1), strict=True))

    def target(term: KD | MSE) -> Tensor:
        return mean_of([teacher[k] for k in teachers(term)])

    def scalar(term: Term) -> Tensor:
        match term:
            case Gates():
                assert gating is not None
                return gate_loss(term.exits, term.cost, logits, labels, gating)
            case CE():
                own, weights = logits[term.exit], image_weights.get(term.exit)
                how = (context.class_weights, context.smoothing, weights, context.several)
                return cross_entropy(own, labels, *how)
            case Features():
                adapted, features = context.features[term]
                mean = squared(adapted, features, image_weights.get(term.exit))
                return mean * _columns(term, adapted)
            case KD():
                weights = image_weights.get(term.exit)
                both = logits[term.exit], target(term)
                return distance(*both, term.temperature, weights, context.several)
            case MSE():
                return squared(logits[term.exit], target(term), image_weights.get(term.exit))
            case _:
                assert_never(term)

    first, *rest = (term.weight * scalar(term) for term in loss)
    for more in rest:  # not `sum`, whose 0 would be one more addition
        first = first + more
    return first


def early_exit_loss(
    loss: Phase | Term | Sequence[Term],
    logits: Sequence[Tensor] | Mapping[int, Tensor],
    labels: Tensor,
    teacher: Sequence[Tensor] | Mapping[int, Tensor] | None = None,
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    several_labels: bool = False,
) -> Tensor:
    """The loss of several exits: the weighted sum of terms such as CE and KD, a pure function.

    Args:
        loss: Terms; or a phase, whose `sample_weights` then count too.
        logits: [B, C] of each exit, first exit first; or by exit, counted from 1.
        labels: [B] class numbers, or [B, C], the share of each class, as mixup makes them.
        teacher: Of the teacher's exits, likewise; None: the same `logits`, without a gradient.
        class_weights: [C], of the cross-entropies.
        label_smoothing: Of the cross-entropies, 0 to 1.
        several_labels: Whether an image has several labels: these are [B, C], 0 or 1, and
            cross-entropies binary ones.

    Returns:
        A scalar.

    Raises:
        OfframpError: A term reads an exit that is not there, or more than logits; or the labels are of
            another form, or of no class.

    Example:
        >>> import torch
        >>> from offramp import CE, KD
        >>> logits = [torch.zeros(2, 10), torch.zeros(2, 10)]
        >>> loss = (CE(1, weight=0.5), CE(2), KD(1, teacher_exit=2))
        >>> offramp.early_exit_loss(loss, logits, torch.tensor([3, 7]))
        tensor(3.4539)
    """
    phase = loss if isinstance(loss, Phase) else None
    listed: Any = phase.terms if phase else (loss,) if isinstance(loss, Term) else loss
    if (
        not isinstance(listed, list | tuple)
        or not listed
        or not all(isinstance(t, Term) for t in listed)
    ):
        raise OfframpError(f"the loss is {kind_of(loss)}; give a Phase, or terms such as (CE(1), CE(2))")
    terms: tuple[Term, ...] = tuple(listed)
    if any(isinstance(t, Features | Gates) for t in terms) or (phase and phase.gated):
        raise OfframpError(
            "the loss reads more than logits (Features or Gates); train it by offramp.program, "
            "whose phase.module has what it reads"
        )
    if phase and phase.taught and not phase.live and teacher is None:
        raise OfframpError(
            f"phase '{phase.name}' learns from the logits of '{phase.teacher}'; give them as teacher="
        )
    mine = _by_exit(logits, "logits")
    theirs = mine if teacher is None else _by_exit(teacher, "teacher")
    exits = {exit for term in terms for exit in students(term)}
    for name, needed, present in (
        ("logits", exits, mine),
        ("teacher", {exit for term in terms for exit in teachers(term)}, theirs),
    ):
        if missing := needed - present.keys():
            raise OfframpError(
                f"the loss reads exit {min(missing)}, and {name} has exits {ranges(present)}; give "
                "the logits of each exit, first exit first, or a mapping from exit to logits"
            )
    read = {k: mine[k] for k in sorted(exits)}
    taught = (theirs[k] for term in terms for k in teachers(term))
    shapes = {tuple(each.shape) for each in (*read.values(), *taught)}
    if len(shapes) > 1:
        raise OfframpError(
            f"the logits are {' and '.join(str(list(shape)) for shape in sorted(shapes))}; give [B, C] "
            "of the same images and classes at each exit"
        )
    ((rows, classes),) = shapes
    labels = check_labels(labels, rows, classes, several_labels)
    check_settings(class_weights, label_smoothing, classes)
    weights = phase.sample_weights if phase else None
    context = LossContext(class_weights, label_smoothing, weights, several=several_labels)
    return objective(terms, read, theirs, labels, context)


def _by_exit(logits: Any, what: str) -> Mapping[int, Tensor]:
    listed = dict(enumerate(logits, start=1)) if isinstance(logits, list | tuple) else logits
    several = listed.values() if isinstance(listed, Mapping) else [None]
    if not all(isinstance(each, Tensor) and each.ndim == 2 for each in several):
        raise OfframpError(
            f"{what} cannot be {shortened(' '.join(repr(logits).split()), 60)}; give a tensor [B, C] of "
            "each exit, first exit first, or a mapping from exit to such"
        )
    return listed


def _columns(term: Features, adapted: Tensor) -> int:
    """What a mean over columns is multiplied by."""
    match term.over:
        case "mean":
            return 1
        case "sum":
            return adapted.shape[1]
        case _:
            assert_never(term.over)
