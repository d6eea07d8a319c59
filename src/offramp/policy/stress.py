"""A policy on images that are not like those it was calibrated on, and what may be concluded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from offramp.policy import quality, scoring
from offramp.policy.calibration import Target
from offramp.policy.candidates import loss_of, where_left
from offramp.policy.limits import LIMITS, Budget
from offramp.policy.paired import Difference, paired
from offramp.policy.policy import Policy
from offramp.policy.quality import Interval
from offramp.units import percent

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
StressKind = Literal["test", "corruption", "foreign", "random", "attack"]
FEWEST = 100  # images, below which nothing is concluded
ERROR = 0.05  # the chance that a sentence on all corruptions names one by chance
PROMISE = (
    "What a policy promises holds for images that are exchangeable with the calibration images, as if "
    "all had been shuffled together. Only the test images as they are may be that."
)


@dataclass(frozen=True, eq=False)
class StressedImages:
    """Images under a policy, one by one. Of all kinds but `foreign` they are the same test images.

    Attributes:
        kind: What was done to them; `foreign` ones are of no class.
        name: The same in words.
        strength: From 1; 0 where there are not several.
        amount: The number behind it: of a `Corruption`, or a largest change of pixels from 0 to 255.
        exits: [N], index of the exit that each leaves at.
        compute: [N], MACs as a share of the plain network's.
        confidence: [N], of the answer, 0 to 1.
        right: [N], whether the answer is right; False of foreign images.
        full: [N], likewise of the full network.
        lost: [N], 0 or 1: `loss_of` by the policy's target.
        last: The index of the last exit.
    """

    kind: StressKind
    name: str
    strength: int
    amount: float
    exits: NDArray[np.integer]
    compute: Floats
    confidence: Floats
    right: Bools
    full: Bools
    lost: Floats
    last: int

    def __len__(self) -> int:
        return len(self.exits)

    @property
    def title(self) -> str:
        """Its name, and its strength where there are several."""
        return f"{self.name} {self.strength}" if self.strength else self.name

    @property
    def early(self) -> Bools:
        """[N], whether each leaves before the last exit."""
        return np.asarray(self.exits < self.last)

    def loss(self, level: float = 0.95) -> Interval:
        """Accuracy of the full network minus that of the policy."""
        lost, gained = (self.full & ~self.right).sum(), (self.right & ~self.full).sum()
        return quality.difference(int(lost), int(gained), len(self), level)


@dataclass(frozen=True)
class StressRow:
    """A policy on images of one kind; intervals are of 95 %, each by itself.

    Attributes:
        kind: See `StressedImages`; also name, strength and amount.
        images: How many.
        accuracy: Of the policy; None of foreign images.
        full: Accuracy of the full network, likewise.
        loss: Full minus policy, likewise.
        compute: Mean MACs, as a share of the plain network's.
        shares: Of images by exit.
        early: Share of images that leave before the last exit.
        confidence: Mean of the images that leave early; None where none does.
    """

    kind: StressKind
    name: str
    strength: int
    amount: float
    images: int
    accuracy: Interval | None
    full: Interval | None
    loss: Interval | None
    compute: Difference
    shares: tuple[float, ...]
    early: Interval
    confidence: float | None

    @classmethod
    def of(cls, images: StressedImages) -> StressRow:
        count, early, is_foreign = len(images), images.early, images.kind == "foreign"
        return cls(
            images.kind,
            images.name,
            images.strength,
            images.amount,
            count,
            accuracy=None if is_foreign else quality.share(int(images.right.sum()), count),
            full=None if is_foreign else quality.share(int(images.full.sum()), count),
            loss=None if is_foreign else images.loss(),
            compute=paired(images.compute, np.zeros(count)),
            shares=tuple((np.bincount(images.exits, minlength=images.last + 1) / count).tolist()),
            early=quality.share(int(early.sum()), count),
            confidence=float(images.confidence[early].mean()) if early.any() else None,
        )


def stressed(
    kind: StressKind,
    name: str,
    policy: Policy,
    spent: Sequence[float],
    logits: Floats,
    labels: NDArray[np.integer],
    *,
    strength: int = 0,
    amount: float = 0.0,
) -> StressedImages:
    """What a policy does with images.

    Args:
        kind: See `StressedImages`; also name, strength and amount.
        name: In words.
        policy: Decides.
        spent: [E], MACs of an image that leaves at each exit, as a share of the plain network's.
        logits: [N, E, C].
        labels: [N]; -1 of foreign images.
        strength: From 1, or 0.
        amount: Behind it.
    """
    exits = np.asarray(policy.leaves(logits))
    says = scoring.all_answer_logits(policy.score, logits)
    answers = scoring.answers(says)
    warmth = policy.temperatures or (1.0,) * len(policy.exits)
    sure = [scoring.probabilities(says[:, i], t).max(axis=1) for i, t in enumerate(warmth)]
    right = answers == labels[:, None]
    target = policy.calibration.target
    lost = loss_of("wrong" if target is None else target.loss, answers, labels)
    return StressedImages(
        kind,
        name,
        strength,
        amount,
        exits,
        compute=np.asarray(spent, dtype=np.float64)[exits],
        confidence=where_left(np.stack(sure, axis=1), exits),
        right=where_left(right, exits) > 0,
        full=right[:, -1],
        lost=where_left(lost, exits),
        last=len(policy.exits) - 1,
    )


def conclusions(
    target: Target | None, images: Sequence[StressedImages], full: float, plain_macs: int
) -> list[str]:
    """What may be said, in sentences.

    Args:
        target: Of the policy; None for thresholds set by hand.
        images: Of all kinds; the test images as they are among them.
        full: MACs of the full network without early heads, as a share of the plain network's.
        plain_macs: Of the network without early exits.

    Returns:
        Of fewer than FEWEST images only that they are too few.
    """
    (plain,) = (each for each in images if each.kind == "test")
    if len(plain) < FEWEST:
        return [
            f"{len(plain)} images are too few to conclude anything; take {FEWEST} or more.",
            PROMISE,
        ]
    worse = [each for each in images if each.kind == "corruption"]
    foreign = [each for each in images if each.kind == "foreign" and len(each) >= FEWEST]
    by_kind = {each.kind: each for each in images}
    return [
        *(_limit(target, plain, worse, plain_macs) if target is not None and worse else ()),
        *(_compute(plain, worse) if worse else ()),
        *(line for each in foreign for line in _foreign(plain, each)),
        *(_attack(plain, by_kind["attack"], by_kind["random"], full) if "attack" in by_kind else ()),
        PROMISE,
    ]


def taken(plain: Floats, attacked: Floats, full: float, level: float = 0.95) -> Interval | None:
    """The share that an attack takes of what leaving early saves, with the interval of a ratio of means
    (delta method).

    Args:
        plain: [N], compute of images as they are.
        attacked: [N], of the same images when attacked.
        full: Compute of an image in the full network.
        level: Of the interval.

    Returns:
        None where images as they are are not shown to save anything.
    """
    saved = paired(np.full(len(plain), full), plain, level)
    if saved.low is None or saved.low <= 0:
        return None
    share = float((attacked - plain).mean()) / saved.mean
    error = ((attacked - plain) - share * (full - plain)) / saved.mean
    half = stats.t.ppf(0.5 + level / 2, len(plain) - 1) * error.std(ddof=1) / np.sqrt(len(plain))
    return Interval(share, share - float(half), share + float(half))


def _limit(
    target: Target, plain: StressedImages, worse: Sequence[StressedImages], plain_macs: int
) -> list[str]:
    """Whether the policy keeps its limit on corrupted images. Nothing of a limit on time."""
    by = LIMITS[target.kind].by
    if isinstance(by, Budget) and by.stages is not None:
        return []
    limit, write = target.value, percent
    if isinstance(by, Budget):
        what, limit = "share of the plain network's MACs", target.value / plain_macs
    elif by == "accuracy":
        what, limit = "share of wrong answers", 1 - target.value
    elif by == "loss" and target.loss == "wrong":
        what, write = "loss of accuracy against the full network", _points
    elif target.loss == "harm":
        what = "share of images that only the full network gets right"
    else:
        what = "share of answers that differ from the full network's"

    def cost(images: StressedImages) -> Interval:
        level = 1 - 2 * ERROR / len(worse)
        if isinstance(by, Budget):
            mean = paired(images.compute, np.zeros(len(images)), level)
            return Interval(mean.mean, mean.low or 0.0, mean.high or 1.0)
        if by == "loss" and target.loss == "wrong":
            return images.loss(level)
        return quality.share(int(images.lost.sum()), len(images), level)

    start = (
        f"The policy is to keep the {what} to {write(limit)}. On the test images as they are it is "
        f"{write(cost(plain).value)}."
    )
    above = [each for each in worse if cost(each).low > limit]
    if not above:
        return [f"{start} On none of {len(worse)} corruptions is it shown to be above the limit."]
    most = max(above, key=lambda each: cost(each).value)
    return [
        f"{start} It is above the limit on {len(above)} of {len(worse)} corruptions, and most on "
        f"{most.title}: {write(cost(most).value)}."
    ]


def _compute(plain: StressedImages, worse: Sequence[StressedImages]) -> list[str]:
    """Whether corrupted images cost more or less than the same images as they are."""
    level = 1 - ERROR / len(worse)
    gaps = [(each, paired(each.compute, plain.compute, level)) for each in worse]
    mean = percent(float(plain.compute.mean()))
    up = [each for each, gap in gaps if gap.low is not None and gap.low > 0]
    down = [each for each, gap in gaps if gap.high is not None and gap.high < 0]
    start = f"Images as they are take {mean} of the plain network's MACs"
    if not up and not down:
        return [f"{start}, and on none of {len(worse)} corruptions is that shown to differ."]

    def spent(images: StressedImages) -> float:
        return float(images.compute.mean())

    parts = []
    if up:
        most = max(up, key=spent)
        parts.append(f"more on {len(up)} (most on {most.title}: {percent(spent(most))})")
    if down:
        least = min(down, key=spent)
        parts.append(f"less on {len(down)} (least on {least.title}: {percent(spent(least))})")
    return [f"{start}. Of {len(worse)} corruptions they take {' and '.join(parts)}."]


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _foreign(plain: StressedImages, foreign: StressedImages) -> list[str]:
    """How many images of no class leave early, and how sure."""
    early = quality.share(int(foreign.early.sum()), len(foreign))
    start = (
        f"Of {len(foreign):,} images of no class {percent(early.value)} leave early "
        f"({percent(early.low)} to {percent(early.high)})"
    )
    if not foreign.early.any() or not plain.early.any():
        return [f"{start}; of the test images {percent(float(plain.early.mean()))} do."]
    sure, usual = (float(each.confidence[each.early].mean()) for each in (foreign, plain))
    return [
        f"{start}, with a mean confidence of {sure:.2f}; of the test images "
        f"{percent(float(plain.early.mean()))} do, with {usual:.2f}."
    ]


def _attack(
    plain: StressedImages, attacked: StressedImages, random: StressedImages, full: float
) -> list[str]:
    """What a slowdown attack takes of what leaving early saves, beside random changes as large."""
    start = f"The slowdown attack (pixels change by at most {attacked.amount:g} of 255)"
    share, other = (taken(plain.compute, each.compute, full) for each in (attacked, random))
    if share is None or other is None:
        return [f"{start} has nothing to take: images as they are are not shown to save compute."]
    if share.low <= 0:
        return [f"{start} is not shown to take any of what leaving early saves."]
    cost = percent(float(attacked.compute.mean()))
    return [
        f"{start} takes {percent(share.value)} of what leaving early saves ({percent(share.low)} to "
        f"{percent(share.high)}), random changes as large {percent(other.value)}. Attacked images cost "
        f"{cost} of the plain network's MACs, and {percent(float(attacked.right.mean()))} are answered "
        "right."
    ]
