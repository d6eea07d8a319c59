"""Reasons why a result is not to be trusted: a network near chance, too few images, times of a busy
machine, a policy that decides nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from offramp.errors import OfframpError
from offramp.policy import scoring
from offramp.policy.calibrate import AGAINST_FULL
from offramp.policy.calibration import Calibration, Kind
from offramp.policy.candidates import SplitLogits
from offramp.policy.guarantees import rows_needed_on_average
from offramp.policy.policy import Policy
from offramp.policy.quality import p_of_chance
from offramp.units import macs

LEVEL = 0.05  # of the test against chance, one-sided
# What to ask for, by kind of target: where a policy lets everything leave, and where it lets nothing.
OTHER: dict[Kind, tuple[str, str]] = {
    "max-accuracy-loss": ("a smaller loss", "a larger loss"),
    "min-accuracy": ("a higher accuracy", "a lower accuracy"),
    "max-mean-macs": ("more MACs", "fewer MACs"),
    "max-mean-latency": ("more time", "less time"),
    "max-p95-latency": ("more time", "less time"),
    "max-disagreement": ("a smaller disagreement", "a larger disagreement"),
    "risk": ("a smaller risk", "a larger risk"),
}
BY_HAND = ("higher thresholds", "lower thresholds")
MORE = "more epochs, pretrained weights or more images would help"


def doubts(policy: Policy, rows: SplitLogits, remark: str | None = None) -> tuple[str, ...]:
    """Why the policy is not to be trusted, a sentence each; empty where nothing speaks against it.

    rows: the calibration split.  remark: why calibration found nothing cheaper, where it is known.
    """
    leaves = policy.leaves(rows.logits)
    images = np.bincount(leaves, minlength=len(policy.exits))
    used = [i for i in range(len(policy.exits) - 1) if images[i]]
    made = policy.calibration
    coarse = () if made.target is None else resolution(made.target.kind, made.target.value, len(leaves))
    stages = None if made.chosen is None else made.chosen.stages
    timed = (stages or {}).get("doubts", ())
    return (*chance(rows, policy.exits, used), *coarse, *timed, *_idle(policy, images.tolist(), remark))


def chance(rows: SplitLogits, exits: Sequence[int], used: Sequence[int] = ()) -> tuple[str, ...]:
    """The final exit, or else each of `used` (indices), where an exact binomial test does not find it
    more often right than the most frequent class alone would be. exits: their numbers."""
    count = len(rows.labels)
    often = int(np.unique(rows.labels, return_counts=True)[1].max())
    right = (scoring.answers(rows.logits) == rows.labels[:, None]).sum(axis=0)
    final = len(exits) - 1
    p = p_of_chance(right, count, often / count)
    weak = [final] if p[final] >= LEVEL else [i for i in used if p[i] >= LEVEL]
    return tuple(
        f"{'the full network' if i == final else f'exit {exits[i]}'} has {right[i]:,} of {count:,} "
        f"calibration images right, and always answering their most frequent class {often:,}, so it is "
        f"not clearly better than chance (p = {p[i]:.2g}); {MORE}"
        for i in weak
    )


def seen(count: int, rows: int) -> tuple[str, ...]:
    """Where one in a hundred calibration images or more, `count` of `rows`, was trained on."""
    if 100 * count < rows or not count:
        return ()
    return (
        f"{count:,} of {rows:,} calibration images are training images too, byte for byte, so new ones "
        "lose more than these; give others, or leave them out where it trains: they are then held out",
    )


def images_needed(kind: str, value: float) -> int:
    """The fewest calibration images that can tell a loss as small as `value`, a share; 0 for a limit
    that does not compare with the full network. kind: of a `Target`."""
    return (rows_needed_on_average(value) or 0) if kind in AGAINST_FULL and value > 0 else 0


def resolution(kind: str, value: float, rows: int) -> tuple[str, ...]:
    """Where so few calibration images cannot tell the loss, as `images_needed` has it."""
    needed = images_needed(kind, value)
    if rows >= needed:
        return ()
    least = math.ceil(1000 / (rows + 1)) / 1000
    return (
        f"{rows:,} calibration images cannot tell a {'loss' if 'loss' in kind else 'disagreement'} of "
        f"{value:g}, as one of them is {100 / rows:.2g} points; it takes {needed:,} "
        "(give more as `calibration` of fit, or hold out more: `data.held_out_images` of a study), "
        f"or a limit of {least:g}",
    )


def check(reasons: Sequence[str], anyway: bool) -> None:
    """Raise OfframpError with the reasons, where there are some, unless `anyway`."""
    if reasons and not anyway:
        said = "; also, ".join(reasons)
        raise OfframpError(f"{said}. --anyway (anyway=True) goes on and marks the result unreliable")


def _idle(policy: Policy, images: Sequence[int], remark: str | None) -> tuple[str, ...]:
    """Where all calibration images leave at one exit without a look at them. images: by exit."""
    target = policy.calibration.target
    stricter, looser = BY_HAND if target is None else OTHER[target.kind]
    if images[-1] == sum(images):
        more = f"{looser}, longer training or more calibration images would help"
        why = remark or _ample(policy.calibration) or more
        return (f"no calibration image leaves early, so nothing is saved: {why}",)
    all_at = policy.takes_all
    if all_at is None or policy.score == "fixed" or images[all_at] < sum(images):
        return ()
    exit, bound = policy.exits[all_at], policy.thresholds[all_at]
    return (
        f"every image leaves at exit {exit}, whose threshold is the lowest there is ({bound:g}), so the "
        f"policy decides nothing; ask for {stricter}, or for this exit alone with the score fixed",
    )


def _ample(made: Calibration) -> str | None:
    """Where all images take the full network within a limit on MACs or time: what it takes. None for
    other limits."""
    target, chosen = made.target, made.chosen
    if target is None or chosen is None:
        return None
    taken = {
        "max-mean-macs": chosen.mean_macs,
        "max-mean-latency": chosen.mean_seconds,
        "max-p95-latency": chosen.p95_seconds,
    }
    spent, limit = taken.get(target.kind), target.value
    if spent is None:
        return None
    if target.kind == "max-mean-macs":
        said = f"{macs(spent)} MACs, within {macs(limit)}"
    else:
        said = f"{1000 * spent:.3g} ms, within {1000 * limit:.4g} ms"
    return f"the full network takes {said}: ask for less"
