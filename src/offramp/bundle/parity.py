"""Whether a bundle answers as PyTorch does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from offramp.bundle.folder import refusing
from offramp.bundle.runtime import Bundle
from offramp.bundle.trial_images import Shown
from offramp.engine.settings import laid_out
from offramp.errors import OfframpError
from offramp.nets import ExitNetwork
from offramp.policy import scoring
from offramp.policy.candidates import SplitLogits
from offramp.policy.policy import Policy

TOLERANCE = 1e-4
RELATIVE = 1e-5  # of the largest logit; float32 carries no more where logits are in the hundreds
BATCH = 128
SHARE = 0.01  # of images: how far int8 may be from what was calibrated; rounding explains no more


@dataclass(frozen=True)
class Parity:
    """A bundle beside PyTorch."""

    images: int  # how many were compared
    what: str  # which they were
    largest: float  # difference of a logit
    # images that leave elsewhere, or are answered otherwise, where a score is within the tolerance of
    # its threshold or two classes are as close
    near: int
    tolerance: float = TOLERANCE  # what rounding may come to


@refusing()
def compare(bundle: Bundle, net: ExitNetwork, policy: Policy, compared: Shown) -> Parity:
    """Compare a bundle with the network in PyTorch, which is in eval mode, on the CPU. Raises
    OfframpError for a logit that differs by more than the tolerance, and for an image that leaves
    elsewhere without reason."""
    what, count = compared.what, len(compared.images.pixels)
    largest, near, strays = 0.0, 0, 0
    for batch in compared.images.batches(BATCH):
        with torch.inference_mode():
            by_exit = net(laid_out(torch.from_numpy(batch), "channels_last"))
        numbers = [stage.exit for stage in bundle.stages]
        theirs = np.stack([by_exit[k - 1].numpy() for k in numbers], axis=1)
        ours = bundle.all_exits(batch)
        gap = np.abs(ours - theirs)
        largest = max(largest, float(gap.max(initial=0.0)))
        if not np.all(gap <= TOLERANCE + RELATIVE * np.abs(theirs).max(initial=0.0)):
            raise OfframpError(
                f"the bundle's logits differ from PyTorch's by {np.nanmax(gap):.2g} on {what}; nothing "
                "was written; export with --no-check (check=False) to look into it"
            )
        other, close = _elsewhere(bundle, policy, theirs, batch)
        near += int((other & close).sum())
        strays += int((other & ~close).sum())
    if strays:
        raise OfframpError(
            f"{strays} of {count} images leave the bundle elsewhere than PyTorch says, on {what}; "
            "nothing was written; export with --no-check (check=False) to look into it"
        )
    return Parity(count, what, largest, near)


@dataclass(frozen=True)
class Likeness:
    """An int8 bundle beside the quantized stages that its thresholds were solved on: sums of int8 are
    exact, what is between them is rounded."""

    images: int  # how many were compared
    what: str  # which they were
    share: float  # largest difference of an exit's share of images
    accuracy: float  # difference
    differing: float  # share of images that are answered otherwise
    lost: float  # accuracy on the calibration images, against float32


@refusing()
def alike(
    bundle: Bundle,
    policy: Policy,
    rows: SplitLogits,
    batches: Iterable[NDArray[np.float32]],
    lost: float,
) -> Likeness:
    """Compare an int8 bundle with the quantized stages that its policy was solved on. rows, batches:
    logits of these stages, and the images that they are of; lost: the accuracy that int8 costs on
    calibration.

    Raises:
        OfframpError: An exit's share, or accuracy, differs by more than SHARE.
    """
    outcomes = [bundle.run(pixels) for pixels in batches]
    place = policy.leaves(rows.logits)
    logits = scoring.all_answer_logits(policy.score, rows.logits)
    answers = scoring.answers(logits[np.arange(len(place)), place], policy.several)
    classes = np.concatenate([answered.classes for answered in outcomes])
    exits = np.concatenate([answered.exits for answered in outcomes])
    share = max(
        abs(float((exits == number).mean()) - float((place == at).mean()))
        for at, number in enumerate(policy.exits)
    )
    right = (_same(classes, rows.labels).mean(), _same(answers, rows.labels).mean())
    accuracy = abs(float(right[0] - right[1]))
    if not max(share, accuracy) <= SHARE:
        raise OfframpError(
            "the int8 bundle differs from its quantized stages on the test split, by "
            f"{100 * accuracy:.2g} points of accuracy and {100 * share:.2g} of an exit's share; nothing "
            "was written; export without int8, and report it"
        )
    differing = float((~_same(classes, answers)).mean())
    return Likeness(len(place), "the whole test split", share, accuracy, differing, lost)


def _same(answers: Any, truth: Any) -> NDArray[np.bool_]:
    """Whether answers are the same, [B]; of several labels all of them."""
    same: NDArray[np.bool_] = answers == truth
    return same if same.ndim == 1 else np.asarray(same.all(axis=1))


def _elsewhere(
    bundle: Bundle, policy: Policy, logits: NDArray[np.float32], pixels: Any
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows that leave elsewhere or are answered otherwise; rows for which rounding may do that.
    logits: of PyTorch, at the active exits."""
    active = [policy.exits.index(stage.exit) for stage in bundle.stages]
    warmth = None if policy.temperatures is None else [policy.temperatures[i] for i in active]
    thresholds = [policy.thresholds[i] for i in active]
    gates = None if policy.gates is None else [policy.gates[i] for i in active]
    place = scoring.leaves(policy.score, logits, thresholds, warmth, gates)
    answering = scoring.all_answer_logits(policy.score, logits, policy.takes_all is None)
    answers = scoring.answers(answering[np.arange(len(answering)), place], policy.several)
    got = bundle.run(pixels)
    exits = np.array([policy.exits[i] for i in active])[place]
    other = (got.exits != exits) | ~_same(got.classes, answers)
    scores = scoring.scores(policy.score, logits, warmth, gates)
    close, kind = np.zeros(len(logits), bool), scoring.SCORES[policy.score]
    for at, threshold in enumerate(thresholds):
        if threshold is not None and kind.graded:
            steepness = scoring.steepness(None if gates is None else gates[at])
            close |= np.abs(scores[:, at] - threshold) <= TOLERANCE * steepness
    if policy.several:
        close |= (np.abs(answering) <= TOLERANCE).any(axis=(1, 2))
    elif logits.shape[-1] > 1:
        best = np.sort(answering, axis=-1)
        close |= np.any(best[..., -1] - best[..., -2] <= 2 * TOLERANCE, axis=1)
    return other, close
