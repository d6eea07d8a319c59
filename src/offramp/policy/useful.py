"""Reasons why a result is unreliable: a network near chance, too few images, times of a busy machine, a
policy that decides nothing. And what is to be told first of a reliable one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from offramp.errors import OfframpError
from offramp.policy.calibration import Calibration, Target
from offramp.policy.candidates import SplitLogits
from offramp.policy.evaluate import Evaluation, limited
from offramp.policy.guarantees import rows_needed, rows_needed_on_average
from offramp.policy.limits import LIMITS, LimitKind, LossKind, check_times
from offramp.policy.policy import Policy
from offramp.policy.quality import difference, p_of_chance
from offramp.policy.stage_times import read, unlike
from offramp.units import percent

LEVEL = 0.05  # of the test against chance, one-sided
LITTLE = 0.05  # of the compute; who saves less is told so
MORE = "more epochs, pretrained weights or more {}s would help"  # of images, or of texts
LOST: Mapping[LossKind, str] = {
    "wrong": "loss of accuracy",
    "harm": "share turned from right to wrong",
    "disagreement": "share of differing answers",
    **dict.fromkeys(("label", "label-harm"), "share of labels wrong for leaving early"),
    **dict.fromkeys(("miss", "miss-harm"), "share of labels missed for leaving early"),
}


def doubts(policy: Policy, rows: SplitLogits, remark: str | None = None) -> tuple[str, ...]:
    """Why the policy is unreliable, a sentence each; empty where nothing speaks against it. rows: the
    calibration split; remark: why calibration could choose nothing cheaper."""
    leaves = policy.leaves(rows.logits)
    images = np.bincount(leaves, minlength=len(policy.exits))
    used = [i for i in range(len(policy.exits) - 1) if images[i]]
    origin, target = policy.calibration, policy.calibration.target
    by_remark = remark and target is not None and target.confidence is not None
    coarse = () if target is None or by_remark else resolution(target, len(leaves), rows.noun)
    stages = None if origin.chosen is None else origin.chosen.stages
    timed = (stages or {}).get("doubts", ())
    return (
        *chance(rows, policy.exits, used),
        *coarse,
        *timed,
        *_idle(policy, images.tolist(), rows.noun, remark),
    )


def chance(rows: SplitLogits, exits: Sequence[int], used: Sequence[int] = ()) -> tuple[str, ...]:
    """A sentence on exits not clearly better than the most frequent class by an exact binomial test: the
    final one, or where that is better, those of `used` (indices). rows: calibration."""
    count = len(rows.labels)
    often = int(np.unique(rows.labels, axis=0, return_counts=True)[1].max())
    right = rows.right().sum(axis=0)
    what = "combination of labels" if rows.several else "class"
    final = len(exits) - 1
    p = p_of_chance(right, count, often / count)
    weak = [final] if p[final] >= LEVEL else [i for i in used if p[i] >= LEVEL]
    reasons = [
        f"{'the full network' if i == final else f'exit {exits[i]}'} has {right[i]:,} of {count:,} "
        f"calibration {rows.noun}s right, and always answering their most frequent {what} {often:,}, so "
        f"it is not clearly better than chance (p = {p[i]:.2g})"
        for i in weak
    ]
    return ("; ".join([*reasons, MORE.format(rows.noun)]),) if reasons else ()


def notes(policy: Policy, rows: SplitLogits, tested: Evaluation | None = None) -> tuple[str, ...]:
    """What a user is told first of a policy, a sentence each. rows: calibration; tested: what the policy
    comes to on test images."""
    first, weak = headline(policy), undertrained(rows, policy.exits)
    above = None if tested is None else above_aim(policy, tested, rows.noun)
    sentences = (above, first, weak and f"{weak}; {MORE.format(rows.noun)}")
    return tuple(sentence for sentence in sentences if sentence)


def headline(policy: Policy) -> str | None:
    """That one exit alone meets the target, or that hardly anything is saved; None where neither is so,
    or where nothing leaves early."""
    chosen = policy.calibration.chosen
    if chosen is None or chosen.saved is None or not chosen.leaving or chosen.leaving[-1] == 1:
        return None
    of = "the plain network's MACs" if chosen.mean_seconds is None else "the full network's time"
    saves = f"saves {percent(chosen.saved)} of {of}"
    if chosen.saved < LITTLE:
        takes = f"saves nothing: it takes {percent(1 - chosen.saved)} of {of}"
        saves = takes if chosen.saved <= 0 else saves.replace("saves", "saves only")
    at = policy.takes_all
    if at is not None and chosen.leaving[at] == 1:
        who = " alone" if policy.score == "fixed" else ", with those before it,"
        return f"Exit {policy.exits[at]}{who} meets the target and {saves}"
    if chosen.saved >= LITTLE:
        return None
    return f"The policy {saves}, as {percent(chosen.leaving[-1])} of all go to the last exit"


def undertrained(rows: SplitLogits, exits: Sequence[int]) -> str | None:
    """That an early exit is surely right more often than the final one, by paired intervals of 95 % over
    all early exits; None where none is."""
    right = rows.right()
    means, early = right.mean(axis=0), len(exits) - 1
    if not early:
        return None
    best = int(means[:early].argmax())
    lost = int((right[:, best] & ~right[:, -1]).sum())
    gained = int((right[:, -1] & ~right[:, best]).sum())
    if difference(lost, gained, len(right), 1 - LEVEL / early).low <= 0:
        return None
    worst = means[-1] < means[:early].min()
    place = f"the worst of {early + 1}" if worst else f"worse than exit {exits[best]}"
    return (
        f"The backbone is undertrained: the final exit is {place}, right on {percent(means[-1])} of the "
        f"calibration {rows.noun}s, exit {exits[best]} on {percent(means[best])}"
    )


def above_aim(policy: Policy, tested: Evaluation, noun: str = "image") -> str | None:
    """That a policy loses more on test images than it was to lose, with the interval; None where it does
    not, or where its target is no limit on that."""
    target = policy.calibration.target
    if target is None:
        return None
    accurate = LIMITS[target.kind].by == "accuracy"
    came = limited(target, tested)
    if came is None or came.value == target.value or (came.value < target.value) is not accurate:
        return None
    what, beyond = ("accuracy", "below") if accurate else (LOST[target.loss], "above")
    return (
        f"On {tested.images:,} test {noun}s the {what} is {100 * came.value:.1f} % (95 %: "
        f"{100 * came.low:.1f} to {100 * came.high:.1f}), {beyond} the aim of {100 * target.value:g} %"
    )


def seen(count: int, rows: int, noun: str = "image") -> tuple[str, ...]:
    """Where one in a hundred calibration rows or more, `count` of `rows`, was trained on."""
    if 100 * count < rows or not count:
        return ()
    return (
        f"{count:,} of {rows:,} calibration {noun}s are training {noun}s too, byte for byte, so new "
        "ones lose more than these; give others, or leave them out where it trains: they are then held "
        "out",
    )


def images_needed(target: Target) -> int:
    """The fewest calibration images that can tell a loss or a risk as small as the target, a share; 0
    for a limit that does not compare with the full network."""
    compares = LIMITS[target.kind].by in ("loss", "guarantee") and target.value > 0
    if compares and target.confidence is not None:
        return rows_needed(target.value, target.confidence) or 0
    return (rows_needed_on_average(target.value) or 0) if compares else 0


def resolution(target: Target, rows: int, noun: str = "image") -> tuple[str, ...]:
    """Where so few calibration rows cannot tell the loss, as `images_needed` has it."""
    needed, sure = images_needed(target), target.confidence
    if rows >= needed:
        return ()
    why = f"as one of them is {100 / rows:.3g} points" if sure is None else f"at confidence {sure:g}"
    return (
        f"{rows:,} calibration {noun}s cannot tell a {target.kind.rpartition('-')[2]} of "
        f"{target.value:g}, {why}; it takes {needed:,} "
        "(give more as `calibration` of fit, or hold out more: `data.held_out_images` of a study); "
        f"they can tell one of {least_loss(rows, sure):g}",
    )


def least_loss(rows: int, confidence: float | None = None) -> float:
    """The least loss, or risk at a confidence, that so many calibration images can tell, a share,
    rounded up to a tenth of a point."""
    least = 1 / (rows + 1) if confidence is None else 1 - (1 - confidence) ** (1 / rows)
    return math.ceil(1000 * least) / 1000


def check_stage_times(file: Path | None, kind: LimitKind, int8: bool, anyway: bool) -> None:
    """Raise OfframpError, before the work, for a limit that lacks the times of a device, and unless
    `anyway` for times of stages in another precision than the bundle's."""
    check_times(kind, file is not None, here=False)
    if file is not None:
        times = read(file)
        check(unlike(times.precision, times.device, int8), anyway)


def check(reasons: Sequence[str], anyway: bool, remedy: str = "") -> None:
    """Raise OfframpError with the reasons, where there are some, unless `anyway`. remedy: a sentence on
    what can be had."""
    if reasons and not anyway:
        text = "; also, ".join(reasons)
        forced = "`anyway=True` goes on and marks the result unreliable"
        raise OfframpError(". ".join(part for part in (text, forced, remedy) if part))


def _idle(policy: Policy, images: Sequence[int], noun: str, remark: str | None) -> tuple[str, ...]:
    """Where all calibration rows leave at one exit without a look at them. images: by exit."""
    target = policy.calibration.target
    if len(images) == 1 and target is None:  # a plain network that is shipped as it is
        return ()
    if images[-1] == sum(images):
        looser = "lower thresholds" if target is None else LIMITS[target.kind].looser
        more = f"{looser}, longer training or more calibration {noun}s would help"
        if target is not None and target.value == 0:  # no number of images can show so little
            more = f"{looser} or longer training would help"
        why = remark or _ample(policy.calibration) or more
        return (f"no calibration {noun} leaves early, so nothing is saved: {why}",)
    all_at = policy.takes_all
    if target is not None or all_at is None or policy.score == "fixed" or images[all_at] < sum(images):
        return ()
    exit, bound = policy.exits[all_at], policy.thresholds[all_at]
    return (
        f"every {noun} leaves at exit {exit}, whose threshold is the lowest there is ({bound:g}), so "
        "the policy decides nothing; set higher thresholds, or this exit alone with the score fixed",
    )


def _ample(calibration: Calibration) -> str | None:
    """What running the whole network takes, where a budget allows that for every image."""
    target, chosen = calibration.target, calibration.chosen
    rule = None if target is None else LIMITS[target.kind]
    if target is None or rule is None or chosen is None or rule.by != "budget":
        return None
    spent = chosen.spent(rule)
    if spent is None:
        return None
    takes = rule.phrase.format(rule.write(spent))
    return f"the full network {takes}, within {rule.write(target.value)}: ask for less"
