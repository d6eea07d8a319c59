"""Reasons why a result is unreliable: a network near chance, too few images, times of a busy machine, a
policy that decides nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from offramp.errors import OfframpError
from offramp.policy import scoring
from offramp.policy.calibration import Calibration
from offramp.policy.candidates import SplitLogits
from offramp.policy.guarantees import rows_needed_on_average
from offramp.policy.limits import LIMITS, Budget, LimitKind, check_times
from offramp.policy.policy import Policy
from offramp.policy.quality import p_of_chance
from offramp.policy.stage_times import read, unlike

LEVEL = 0.05  # of the test against chance, one-sided
BY_HAND = ("higher thresholds", "lower thresholds")  # stricter, looser
MORE = "more epochs, pretrained weights or more images would help"


def doubts(policy: Policy, rows: SplitLogits, remark: str | None = None) -> tuple[str, ...]:
    """Why the policy is unreliable, a sentence each; empty where nothing speaks against it. rows: the
    calibration split; remark: why calibration could choose nothing cheaper."""
    leaves = policy.leaves(rows.logits)
    images = np.bincount(leaves, minlength=len(policy.exits))
    used = [i for i in range(len(policy.exits) - 1) if images[i]]
    origin = policy.calibration
    coarse = (
        () if origin.target is None else resolution(origin.target.kind, origin.target.value, len(leaves))
    )
    stages = None if origin.chosen is None else origin.chosen.stages
    timed = (stages or {}).get("doubts", ())
    return (*chance(rows, policy.exits, used), *coarse, *timed, *_idle(policy, images.tolist(), remark))


def chance(rows: SplitLogits, exits: Sequence[int], used: Sequence[int] = ()) -> tuple[str, ...]:
    """Exits that by an exact binomial test are not clearly better than the most frequent class, a
    sentence each: the final one, or where that is better, those of `used` (indices). rows: calibration.
    """
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


def images_needed(kind: LimitKind, value: float) -> int:
    """The fewest calibration images that can tell a loss as small as `value`, a share; 0 for a limit
    that does not compare with the full network."""
    compares = LIMITS[kind].by == "loss" and value > 0
    return (rows_needed_on_average(value) or 0) if compares else 0


def resolution(kind: LimitKind, value: float, rows: int) -> tuple[str, ...]:
    """Where so few calibration images cannot tell the loss, as `images_needed` has it."""
    needed = images_needed(kind, value)
    if rows >= needed:
        return ()
    least = math.ceil(1000 / (rows + 1)) / 1000
    return (
        f"{rows:,} calibration images cannot tell a {kind.rpartition('-')[2]} of {value:g}, as "
        f"one of them is {100 / rows:.2g} points; it takes {needed:,} "
        "(give more as `calibration` of fit, or hold out more: `data.held_out_images` of a study), "
        f"or a limit of {least:g}",
    )


def check_stage_times(file: Path | None, kind: LimitKind, int8: bool, anyway: bool) -> None:
    """Raise OfframpError, before the work, for a limit that lacks the times of a device, and unless
    `anyway` for times of stages in another precision than the bundle's."""
    check_times(kind, file is not None, here=False)
    if file is not None:
        times = read(file)
        check(unlike(times.precision, times.device, int8), anyway)


def check(reasons: Sequence[str], anyway: bool) -> None:
    """Raise OfframpError with the reasons, where there are some, unless `anyway`."""
    if reasons and not anyway:
        text = "; also, ".join(reasons)
        raise OfframpError(f"{text}. --anyway (anyway=True) goes on and marks the result unreliable")


def _idle(policy: Policy, images: Sequence[int], remark: str | None) -> tuple[str, ...]:
    """Where all calibration images leave at one exit without a look at them. images: by exit."""
    target = policy.calibration.target
    limit = None if target is None else LIMITS[target.kind]
    stricter, looser = BY_HAND if limit is None else (limit.stricter, limit.looser)
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


def _ample(calibration: Calibration) -> str | None:
    """What running the whole network takes, where a budget allows that for every image."""
    target, chosen = calibration.target, calibration.chosen
    rule = None if target is None else LIMITS[target.kind]
    if target is None or rule is None or chosen is None or not isinstance(rule.by, Budget):
        return None
    spent = chosen.spent(rule.by)
    if spent is None:
        return None
    write = rule.unit.write
    return f"the full network takes {write(spent)}, within {write(target.value)}: ask for less"
