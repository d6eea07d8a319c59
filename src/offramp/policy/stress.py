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
from offramp.policy.candidates import SplitLogits, where_left
from offramp.policy.costs import Costs
from offramp.policy.evaluate import Evaluation, evaluate, limited
from offramp.policy.limits import LIMITS, SHARE, Budget
from offramp.policy.policy import Policy
from offramp.policy.quality import Interval, paired
from offramp.units import percent

Floats = NDArray[np.floating]
StressKind = Literal["test", "corruption", "foreign", "random", "attack"]
FEWEST = 100  # images, below which nothing is concluded
ERROR = 0.05  # the chance that a sentence on all corruptions names one by chance
PROMISE = (
    "What a policy promises holds for images that are exchangeable with the calibration images, as if "
    "all had been shuffled together. Only the test images as they are may be that."
)


@dataclass(frozen=True, eq=False)
class StressRow:
    """A policy on images of one kind. Of all kinds but `foreign` they are the same test images."""

    kind: StressKind  # what was done to them; `foreign` ones are of no class, so that no answer is right
    name: str  # the same in words
    strength: int  # from 1; 0 where there are not several
    amount: float  # the number behind it: of a `Corruption`, or a largest change of pixels from 0 to 255
    tested: Evaluation  # what the policy comes to
    early: Interval  # share of images that leave before the last exit
    confidence: float | None  # mean of those; None where there are none
    leaves: NDArray[np.integer]  # [N], index of the exit of each
    spent: Floats  # [N], MACs of each

    @property
    def title(self) -> str:
        """Its name, and its strength where there are several."""
        return f"{self.name} {self.strength}" if self.strength else self.name


def stress_row(
    kind: StressKind,
    name: str,
    policy: Policy,
    costs: Costs,
    rows: SplitLogits,
    classes: Sequence[str],
    strength: tuple[int, float] = (0, 0.0),
) -> StressRow:
    """What a policy does with images; labels of `rows` are -1 if these are foreign. kind, name: see
    `StressRow`; strength: and the amount behind it."""
    exits = np.asarray(policy.leaves(rows.logits))
    says = scoring.all_answer_logits(policy.score, rows.logits)
    warmth = policy.temperatures or (1.0,) * len(policy.exits)
    sure = scoring.certainties(says, warmth, policy.several)
    early = exits < len(policy.exits) - 1
    return StressRow(
        kind,
        name,
        *strength,
        tested=evaluate(policy, rows, costs, classes),
        early=quality.share(int(early.sum()), len(exits)),
        confidence=float(where_left(sure, exits)[early].mean()) if early.any() else None,
        leaves=exits,
        spent=np.asarray(policy.macs(costs), dtype=np.float64)[exits],
    )


def conclusions(
    target: Target | None, rows: Sequence[StressRow], full_macs: int, plain_macs: int
) -> list[str]:
    """What may be said, in sentences; of fewer than FEWEST images only that they are too few.

    Args:
        target: Of the policy; None for thresholds set by hand.
        rows: Of all kinds; the test images as they are among them.
        full_macs: Of the full network, without early heads.
        plain_macs: Of the network without early exits.
    """
    by_kind = {row.kind: row for row in rows}
    plain, worse = by_kind["test"], [row for row in rows if row.kind == "corruption"]
    if len(plain.spent) < FEWEST:
        few = f"{len(plain.spent)} images are too few to conclude anything; take {FEWEST} or more."
        return [few, PROMISE]
    lines = []
    if worse and target is not None:
        lines += _limit(target, plain, worse)
    if worse:
        lines.append(_compute(plain, worse, plain_macs))
    if "foreign" in by_kind and len(by_kind["foreign"].spent) >= FEWEST:
        lines.append(_foreign(plain, by_kind["foreign"]))
    if "attack" in by_kind:
        lines.append(_attack(plain, by_kind["attack"], by_kind["random"], full_macs, plain_macs))
    return [*lines, PROMISE]


def taken(plain: Floats, attacked: Floats, full: float) -> Interval | None:
    """The share that an attack takes of what leaving early saves, with the interval of 95 % of a ratio
    of means (delta method); None where images as they are are not shown to save anything. plain,
    attacked: [N], MACs of images as they are, and of the same when attacked; full: in the full network.
    """
    saved = paired(np.full(len(plain), full), plain)
    if saved.low is None or saved.low <= 0:
        return None
    share = float((attacked - plain).mean()) / saved.mean
    error = ((attacked - plain) - share * (full - plain)) / saved.mean
    half = stats.t.ppf(0.975, len(plain) - 1) * error.std(ddof=1) / np.sqrt(len(plain))
    return Interval(share, share - float(half), share + float(half))


def _limited(target: Target, row: StressRow, level: float) -> Interval | None:
    """What the target limits, on these images; None where that is not looked at."""
    by = LIMITS[target.kind].by
    if not isinstance(by, Budget):
        return limited(target, row.tested, level)
    return None if by.by_image is None else _mean(by.by_image(row), level)


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _mean(values: NDArray[np.bool_ | np.floating], level: float) -> Interval:
    """Of what each image spends, or the share of those that do."""
    if values.dtype == np.bool_:
        return quality.share(int(values.sum()), len(values), level)
    mean = paired(values.astype(np.float64), np.zeros(len(values)), level)
    return Interval(mean.mean, mean.low or 0.0, mean.high or 0.0)


def _limit(target: Target, plain: StressRow, worse: Sequence[StressRow]) -> list[str]:
    """Whether the policy keeps its limit on corrupted images."""
    level = 1 - 2 * ERROR / len(worse)  # its lower end alone decides
    usual = _limited(target, plain, level)
    if usual is None:
        return []
    rule, differ = LIMITS[target.kind], LIMITS["max-disagreement"]
    what = differ.counts if target.loss == "disagreement" else rule.counts
    limit = 1 - target.value if rule.by == "accuracy" else target.value
    shares = _points if (rule.by, target.loss) == ("loss", "wrong") else percent
    write = shares if rule.unit is SHARE else rule.unit.write
    start = (
        f"The policy is to keep the {what} to {write(limit)}. On the test images as they are it is "
        f"{write(usual.value)}."
    )
    costs = [(row, _limited(target, row, level)) for row in worse]
    above = [(row, cost) for row, cost in costs if cost is not None and cost.low > limit]
    if not above:
        return [f"{start} On none of {len(worse)} corruptions is it shown to be above the limit."]
    most, cost = max(above, key=lambda pair: pair[1].value)
    return [
        f"{start} It is above the limit on {len(above)} of {len(worse)} corruptions, and most on "
        f"{most.title}: {write(cost.value)}."
    ]


def _compute(plain: StressRow, worse: Sequence[StressRow], plain_macs: int) -> str:
    """Whether corrupted images cost more or less than the same images as they are."""
    level = 1 - ERROR / len(worse)
    gaps = [(row, paired(row.spent, plain.spent, level)) for row in worse]
    up = [row for row, gap in gaps if gap.low is not None and gap.low > 0]
    down = [row for row, gap in gaps if gap.high is not None and gap.high < 0]

    def share(row: StressRow) -> float:
        return float(row.spent.mean()) / plain_macs

    start = f"Images as they are take {percent(share(plain))} of the plain network's MACs"
    if not up and not down:
        return f"{start}, and on none of {len(worse)} corruptions is that shown to differ."
    parts = []
    if up:
        most = max(up, key=share)
        parts.append(f"more on {len(up)} (most on {most.title}: {percent(share(most))})")
    if down:
        least = min(down, key=share)
        parts.append(f"less on {len(down)} (least on {least.title}: {percent(share(least))})")
    return f"{start}. Of {len(worse)} corruptions they take {' and '.join(parts)}."


def _foreign(plain: StressRow, foreign: StressRow) -> str:
    """How many images of no class leave early, and how sure."""
    sure, usual = (
        "" if row.confidence is None else f", with a mean confidence of {row.confidence:.2f}"
        for row in (foreign, plain)
    )
    early = foreign.early
    return (
        f"Of {len(foreign.spent):,} images of no class {percent(early.value)} leave early "
        f"({percent(early.low)} to {percent(early.high)}){sure}; of the test images "
        f"{percent(plain.early.value)} do{usual}."
    )


def _attack(
    plain: StressRow, attacked: StressRow, random: StressRow, full_macs: int, plain_macs: int
) -> str:
    """What a slowdown attack takes of what leaving early saves, beside random changes as large."""
    start = f"The slowdown attack (pixels change by at most {attacked.amount:g} of 255)"
    share, other = (taken(plain.spent, row.spent, full_macs) for row in (attacked, random))
    if share is None or other is None:
        return f"{start} has nothing to take: images as they are are not shown to save compute."
    if share.low <= 0:
        return f"{start} is not shown to take any of what leaving early saves."
    cost = percent(float(attacked.spent.mean()) / plain_macs)
    return (
        f"{start} takes {percent(share.value)} of what leaving early saves ({percent(share.low)} to "
        f"{percent(share.high)}), random changes as large {percent(other.value)}. Attacked images cost "
        f"{cost} of the plain network's MACs, and {percent(attacked.tested.policy.value)} are answered "
        "right."
    )
