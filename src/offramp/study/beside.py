"""Which to ship: a network with early exits, or the smaller plain network that was trained beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from offramp.errors import OfframpError
from offramp.policy.calibrate import Performance
from offramp.policy.calibration import Target
from offramp.policy.candidates import loss_of, where_left
from offramp.policy.limits import LIMITS
from offramp.policy.policy import Policy
from offramp.policy.quality import Interval, difference
from offramp.study.trained import Trained, policy_for, search_of
from offramp.units import macs, percent

ShippingChoice = Literal["plain network", "early exits", "open"]
LEVEL, POWER = 0.05, 0.8
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class NetworkLine:
    """A network on the test images. macs: of an image, on average."""

    network: str
    accuracy: float
    macs: float


@dataclass(frozen=True)
class Beside:
    """Early exits beside a smaller plain network."""

    plain: str  # the trial of the plain network
    networks: tuple[NetworkLine, ...]  # the policy, the whole network, the smaller plain network
    difference: Interval  # accuracy of the plain network minus that of the early exits at its compute
    p: float  # of no difference, over the test images (McNemar's test, exact)
    ship: ShippingChoice  # which of the two
    why: str  # in words, with the numbers


def beside(early: Trained, rule: Policy, plain: Trained, name: str) -> Beside:
    """Compare a policy's network with a plain network on the test images, each trained once.

    The two are tested at equal compute: the network with early exits under the policy that its
    calibration images give for the plain network's MACs, or, where no exit is as cheap, under `rule`.
    name: what the plain network is called, as `width small`; its last exit counts.

    Raises:
        OfframpError: They answered other images.
    """
    if early.classes != plain.classes or not np.array_equal(early.test.labels, plain.test.labels):
        raise OfframpError(
            f"{early.id} and {plain.id} answered other test images; train both on one split"
        )
    at, target = plain.costs.full, rule.calibration.target
    try:
        equal = policy_for(early, Target("max-mean-macs", at), search_of(rule), anyway=True).policy
        as_cheap = True
    except OfframpError:
        equal, as_cheap = rule, False
    own, (usual, spent) = plain.test.right()[:, -1], _under(rule, early)
    theirs, at_equal = _under(equal, early)
    gained, lost = int((own & ~theirs).sum()), int((theirs & ~own).sum())
    gap, p = difference(gained, lost, len(own)), 1.0
    if gained + lost:
        p = float(stats.binomtest(gained, gained + lost).pvalue)
    full = early.test.right()[:, -1]
    lines = (
        NetworkLine("early exits, by the policy", float(usual.mean()), spent),
        NetworkLine("the same network, no image leaves", float(full.mean()), float(early.costs.full)),
        NetworkLine(f"smaller plain network ({name})", float(own.mean()), float(at)),
    )
    keeps_it = None if target is None else keeps(plain, early, target)
    span = f"95 %: {100 * gap.low:+.1f} to {100 * gap.high:+.1f}; p {p:.2g}"
    right = "right in all labels" if early.several else "right"
    compared = (
        f"a plain network of {macs(at)} MACs ({name}) is {right} on {percent(float(own.mean()))} of "
        f"{len(own):,} test images, the early exits with {macs(at_equal)} on "
        f"{percent(float(theirs.mean()))} ({100 * gap.value:+.1f} points, {span})"
    )
    ship: ShippingChoice = "open"
    match p < LEVEL, gap.value > 0:
        case True, True if keeps_it is False and target is not None:
            why = f"It is for you to choose: {compared}, but the plain network misses {target.words}"
        case True, True:
            more = (
                f"; whether it keeps {target.words} is not known" if target and keeps_it is None else ""
            )
            ship, why = "plain network", f"Ship the plain network: {compared}{more}"
        case True, False if as_cheap:
            ship, why = "early exits", f"Ship the early exits: {compared}"
        case True, False:
            why = f"It is for you to choose, less compute or more right: {compared}"
        case _:
            why = f"The test images do not tell which to ship: {compared}{_found(own, theirs)}"
    return Beside(plain.id, lines, gap, p, ship, f"{why}. Each was trained once")


def keeps(plain: Trained, early: Trained, target: Target) -> bool | None:
    """Whether a plain network, which sends every image to its last exit, keeps a limit on calibration
    images, as its numbers there are; None of a time and of a guarantee, which it was not measured or
    certified for."""
    rule, rows = LIMITS[target.kind], early.calibration
    both = [each.calibration.answers()[:, -1] for each in (plain, early)]
    lost, whole = loss_of(target.loss, np.stack(both, axis=1), rows.labels).mean(axis=0).tolist()
    if rule.by == "budget":
        right = float(plain.calibration.right()[:, -1].mean())
        spent = rule.spent(Performance(right, plain.costs.full, risk=lost, shares=(1.0,)))
        return None if spent is None else spent <= target.value
    if rule.by == "accuracy":
        return bool(1 - lost >= target.value)
    below = bool(lost - whole <= target.value)
    return None if below and rule.by == "guarantee" else below


def _under(rule: Policy, early: Trained) -> tuple[Bools, float]:
    """Whether a policy is right on each test image, and the mean MACs of one."""
    leaves = rule.leaves(early.test.logits)
    right = where_left(early.test.right(rule.score).astype(np.float64), leaves) > 0
    return right, float(np.asarray(rule.macs(early.costs), dtype=float)[leaves].mean())


def _found(own: Bools, theirs: Bools) -> str:
    """The difference that so many images, which differ on as many, would most likely have shown."""
    error = math.sqrt(float((own != theirs).mean()) / len(own))
    least = error * float(stats.norm.isf(LEVEL / 2) + stats.norm.ppf(POWER))
    return (
        f"; one of {100 * least:.1f} points would have been found in 80 % of such tests" if least else ""
    )
