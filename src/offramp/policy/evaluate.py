"""What a policy does on a split that did not choose it, with intervals: a calibration's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from offramp.labels import several
from offramp.policy import quality, scoring
from offramp.policy.calibration import Target
from offramp.policy.candidates import SplitLogits, loss_of, where_left
from offramp.policy.costs import Costs
from offramp.policy.limits import LIMITS, LossKind
from offramp.policy.policy import Policy
from offramp.policy.quality import Bound, Difference, Interval, oracle, paired, random_exit

Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ExitEvaluation:
    """An exit under a policy."""

    exit: int  # its number
    threshold: float | None  # None where nothing leaves
    share: float  # of inputs that leave here
    accuracy: float | None  # of those; None where there are none
    accuracy_all: float  # of the exit on every input
    # calibration error of the exit's confidence, with the policy's temperature, on every input
    ece: float | None
    # how well its score tells right from wrong, on every input; that of confidence where the score means
    # nothing for a single exit
    auroc: float | None
    aurc: float  # likewise, the area under the risk-coverage curve


@dataclass(frozen=True)
class ClassEvaluation:
    """A policy on the images of a class."""

    name: str  # of the class
    images: int  # how many
    full: float  # accuracy of the full network
    policy: float  # accuracy of the policy
    loss: Interval  # full minus policy, with its interval over those images


@dataclass(frozen=True)
class LabelLoss:
    """The mean over images of a share of their labels."""

    full: float  # in the full network
    policy: float
    more: Difference  # policy minus full
    harm: Difference  # what the policy loses and the full network does not


@dataclass(frozen=True)
class Evaluation:
    """A policy on a split; intervals are of 95 %."""

    images: int  # how many
    full: Interval  # accuracy of the full network
    policy: Interval  # accuracy of the policy
    loss: Interval  # full minus policy, paired by image
    harm: Interval  # share where the full network is right and the policy wrong
    disagreement: Interval  # share where they differ
    macs: Difference  # mean of an image; the interval's low and high may be None
    exits: tuple[ExitEvaluation, ...]  # by exit of the policy
    classes: tuple[ClassEvaluation, ...]  # those that have images
    oracle: Bound  # leaves at the first exit that is right
    random: Bound  # leaves by the policy's shares, whatever the image
    # of several labels an image, by the kind of loss (`label`, `miss`): what the full network and the
    # policy lose of them on average, and the difference
    labels: Mapping[str, LabelLoss] = field(default_factory=dict)


def evaluate(policy: Policy, rows: SplitLogits, costs: Costs, classes: Sequence[str]) -> Evaluation:
    """Evaluate a policy. classes: names by label."""
    leaves = policy.leaves(rows.logits)
    logits = scoring.all_answer_logits(policy.score, rows.logits)
    answers, right = rows.answers(policy.score), rows.right(policy.score)
    chosen = where_left(right.astype(np.float64), leaves) > 0
    full, images = right[:, -1], len(leaves)
    differs = where_left(loss_of("disagreement", answers, rows.labels), leaves)
    spent = np.asarray(policy.macs(costs), dtype=np.float64)[leaves]
    every = range(len(policy.exits))
    shares = np.bincount(leaves, minlength=len(policy.exits)) / images
    alone = [costs.leaving([i])[0] for i in every]
    return Evaluation(
        images,
        quality.share(int(full.sum()), images),
        policy=quality.share(int(chosen.sum()), images),
        loss=_loss(full, chosen),
        harm=quality.share(int((full & ~chosen).sum()), images),
        disagreement=quality.share(int(differs.sum()), images),
        macs=paired(spent, np.zeros(images)),
        exits=tuple(_exit(policy, i, logits, right[:, i], leaves) for i in every),
        classes=_classes(classes, rows.labels > 0, answers[:, -1], answers[np.arange(images), leaves])
        if rows.several
        else _classes(classes, rows.labels[:, None] == np.arange(len(classes)), full, chosen),
        labels=_shares(answers, rows.labels, leaves) if rows.several else {},
        oracle=oracle(right, costs.leaving(list(every))),
        random=random_exit(right, alone, shares.tolist()),
    )


def limited(target: Target, tested: Evaluation) -> Interval | None:
    """What a target limits of answers, with its interval. None of a budget, and of labels where a single
    image has no interval."""
    limit = LIMITS[target.kind]
    if limit.by in ("budget", "accuracy"):
        return tested.policy if limit.by == "accuracy" else None
    match target.loss:
        case "wrong":
            return tested.loss
        case "harm":
            return tested.harm
        case "disagreement":
            return tested.disagreement
        case "label" | "miss" | "label-harm" | "miss-harm" as loss:
            kind, _, harm = loss.partition("-")
            gap = tested.labels[kind].harm if harm else tested.labels[kind].more
            return None if gap.low is None or gap.high is None else Interval(gap.mean, gap.low, gap.high)
        case other:
            assert_never(other)


def _loss(full: Bools, chosen: Bools) -> Interval:
    return quality.difference(int((full & ~chosen).sum()), int((chosen & ~full).sum()), len(full))


def _exit(policy: Policy, at: int, logits: scoring.Array, right: Bools, leaves: Ints) -> ExitEvaluation:
    warmth = 1.0 if policy.temperatures is None else policy.temperatures[at]
    score = scoring.SCORES[policy.score]
    alone = score.graded and not score.history  # else it says nothing of how sure a single exit is
    gate = None if policy.gates is None else policy.gates[at]
    alone = alone and (gate is not None or not score.learned)
    name = policy.score if alone else scoring.usual(policy.several)
    sure = scoring.certainty(logits[:, at], warmth, policy.several)
    scores, _ = scoring.score(name, logits[:, at], warmth, gate=gate)
    here = leaves == at
    return ExitEvaluation(
        policy.exits[at],
        policy.thresholds[at],
        share=float(here.mean()),
        accuracy=float(right[here].mean()) if here.any() else None,
        accuracy_all=float(right.mean()),
        # Of several labels, the least sure one's probability is none that all are right.
        ece=None if policy.several else quality.calibration_error(sure, right),
        auroc=quality.auroc(scores, right),
        aurc=quality.aurc(scores, right),
    )


def _shares(answers: scoring.Array, labels: Ints, leaves: Ints) -> dict[str, LabelLoss]:
    losses: dict[str, LabelLoss] = {}
    kinds: tuple[tuple[LossKind, LossKind], ...] = (("label", "label-harm"), ("miss", "miss-harm"))
    for kind, harm in kinds:
        lost = loss_of(kind, answers, labels)
        policy, full = where_left(lost, leaves), lost[:, -1]
        more = where_left(loss_of(harm, answers, labels), leaves)
        means = float(full.mean()), float(policy.mean())
        losses[kind] = LabelLoss(*means, paired(policy, full), paired(more, np.zeros(len(more))))
    return losses


def _classes(names: Sequence[str], of: Bools, full: Bools, chosen: Bools) -> tuple[ClassEvaluation, ...]:
    """Each class that has images. of: [N, C], which; full, chosen: where the full network and the policy
    are right, [N]; or of several labels, where they find each, [N, C]."""
    evaluations = []
    for label, name in enumerate(names):
        here = of[:, label]
        if here.any():
            before, after = (
                each[here, label] if several(each) else each[here] for each in (full, chosen)
            )
            means = float(before.mean()), float(after.mean())
            evaluations.append(ClassEvaluation(name, int(here.sum()), *means, _loss(before, after)))
    return tuple(evaluations)
