"""Choosing a policy on the calibration split, with or without a guarantee.

Nothing here is given the test split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from offramp.errors import OfframpError
from offramp.policy import guarantees as risk
from offramp.policy import losses, scoring
from offramp.policy.candidates import Loss, Rows, Search, candidates, loss_of
from offramp.policy.costs import Costs
from offramp.policy.policy import Policy

Floats = NDArray[np.floating]
Kind = Literal[
    "max-accuracy-loss",
    "min-accuracy",
    "max-mean-macs",
    "max-mean-latency",
    "max-disagreement",
    "risk",
]


FEW = 10  # images that a share should come to before a sample of them says something of it


@dataclass(frozen=True)
class Target:
    """What is asked for.

    value: a share from 0 to 1, MACs for `max-mean-macs`, seconds for `max-mean-latency`.  confidence:
    of a guarantee over calibration draws, for `risk`; None there bounds the mean over draws.  labels:
    whether the risk is harm (the full network right, the policy wrong) or, without labels, disagreement.
    """

    kind: Kind
    value: float
    confidence: float | None = None
    labels: bool = True

    @property
    def loss(self) -> Loss:
        """What the candidates are made to keep low."""
        if self.kind == "max-disagreement" or (self.kind == "risk" and not self.labels):
            return "disagreement"
        return "harm" if self.kind == "risk" else "wrong"


@dataclass(frozen=True)
class Measure:
    """A policy on a split. accuracy: 0 to 1, None where no labels were to be read.  macs: mean of a
    row.  loss: mean of the target's loss.  shares: of rows by exit.  seconds: mean of a row, by
    measured times of stages; None where there are none."""

    accuracy: float | None
    macs: float
    loss: float
    shares: tuple[float, ...]
    seconds: float | None = None


@dataclass(frozen=True)
class Calibrated:
    """What calibration came to.

    candidates: from the dearest to the cheapest, as ordered on validation.  measures: of each, on
    calibration.  chosen: index of one of them.  rows: of calibration.  bound: for a guarantee with
    confidence, what the chosen policy's risk is below; the full network's is 0 by definition.
    remark: where there is one, why nothing cheaper could be had, or how little the choice means.
    """

    target: Target
    candidates: tuple[Policy, ...]
    measures: tuple[Measure, ...]
    chosen: int
    rows: int
    bound: float | None
    remark: str | None

    @property
    def policy(self) -> Policy:
        return self.candidates[self.chosen]


def calibrate(
    validation: Rows,
    calibration: Rows,
    exits: tuple[int, ...],
    costs: Costs,
    target: Target,
    search: Search,
    times: Costs | None = None,
) -> Calibrated:
    """Make candidates on validation; choose on calibration the cheapest that meets the target.

    times: for `max-mean-latency`: measured nanoseconds an image, in the place of MACs; candidates are
    then those that lose least for their time.

    Raises OfframpError for a target that no candidate meets.
    """
    found = candidates(validation, exits, times or costs, search, target.loss)
    leaves = [policy.leaves(calibration.logits) for policy in found]
    answers = scoring.answers(calibration.logits)
    lost = loss_of(target.loss, answers, calibration.labels)
    labeled = target.loss != "disagreement"
    wrong = losses.wrong(answers, calibration.labels) if labeled else None
    measures = tuple(
        _measure(policy, out, costs, times, lost, wrong)
        for policy, out in zip(found, leaves, strict=True)
    )
    bound, remark = None, None
    if target.kind == "risk":
        taken = np.column_stack([losses.taken(lost, out) for out in leaves])
        chosen = _certified(taken, target)
        if chosen and target.confidence is not None:
            bound = risk.upper_bound(int(taken[:, chosen].sum()), len(taken), target.confidence)
        if not chosen and len(found) > 1:
            seen = loss_of(target.loss, scoring.answers(validation.logits), validation.labels)
            first = losses.taken(seen, found[1].leaves(validation.logits))
            remark = _too_small(target, len(taken), float(first.mean()))
    else:
        chosen = _cheapest(measures, target)
        remark = _coarse(target, len(calibration.labels))
    if len(found) == 1:
        remark = "the trial has no exit that is cheaper than the full network"
    return Calibrated(target, found, measures, chosen, len(calibration.labels), bound, remark)


def _measure(
    policy: Policy,
    leaves: NDArray[np.integer],
    costs: Costs,
    times: Costs | None,
    lost: Floats,
    wrong: Floats | None,
) -> Measure:
    shares = np.bincount(leaves, minlength=len(policy.exits)) / len(leaves)
    return Measure(
        None if wrong is None else 1 - float(losses.taken(wrong, leaves).mean()),
        float(shares @ np.asarray(policy.macs(costs), dtype=np.float64)),
        float(losses.taken(lost, leaves).mean()),
        tuple(float(s) for s in shares),
        None if times is None else 1e-9 * float(shares @ np.asarray(policy.macs(times), np.float64)),
    )


def _certified(taken: Floats, target: Target) -> int:
    """The boldest certified candidate; 0, the full network, has no risk and needs no test."""
    if target.confidence is None:
        return risk.conformal(taken[:, 1:], target.value) if taken.shape[1] > 1 else 0
    bolder = taken[:, 1:]
    return risk.learn_then_test(bolder, target.value, target.confidence) if bolder.size else 0


def _cheapest(measures: Sequence[Measure], target: Target) -> int:
    """The last, and so by validation the cheapest, candidate that meets the target on calibration; for
    a bound on MACs or time the dearest, which by validation is the most accurate."""
    full = measures[0].accuracy
    if target.kind == "max-mean-macs":
        fits = [i for i, m in enumerate(measures) if m.macs <= target.value]
        if not fits:
            least = min(m.macs for m in measures)
            raise OfframpError(
                f"no policy costs at most {target.value:,.0f} MACs an image; the cheapest costs "
                f"{least:,.0f}, so allow that or place an exit earlier"
            )
        return fits[0]
    if target.kind == "max-mean-latency":
        spent = [m.seconds for m in measures if m.seconds is not None]
        fits = [i for i, seconds in enumerate(spent) if seconds <= target.value]
        if not fits:
            raise OfframpError(
                f"no policy takes at most {1000 * target.value:.4g} ms an image here; the fastest takes "
                f"{1000 * min(spent):.4g} ms, so allow that, place an exit earlier or take another batch"
            )
        return fits[0]
    if target.kind == "max-disagreement":
        fits = [i for i, m in enumerate(measures) if m.loss <= target.value]
    else:
        assert full is not None
        floor = target.value if target.kind == "min-accuracy" else full - target.value
        fits = [
            i for i, m in enumerate(measures) if m.accuracy is not None and m.accuracy >= floor - 1e-12
        ]
    if not fits:
        best = max(m.accuracy or 0.0 for m in measures)
        raise OfframpError(
            f"no policy reaches accuracy {target.value:g} on the calibration split; the best reaches "
            f"{best:.4f}, so ask for less or train longer"
        )
    return fits[-1]


def _coarse(target: Target, rows: int) -> str | None:
    """How little so few calibration images tell of a share that is to be met on them."""
    shares = ("max-accuracy-loss", "max-disagreement")
    if target.kind not in shares or not 0 < target.value * rows < FEW:
        return None
    return (
        f"{rows:,} calibration images tell little of {100 * target.value:g} in a hundred, as one of "
        f"them is {100 / rows:.2g}; {_count(math.ceil(FEW / target.value))} would tell more"
    )


def _too_small(target: Target, rows: int, rate: float) -> str:
    """Why nothing was certified, and how many rows would do. rate: of the safest candidate, seen on
    validation."""
    if target.confidence is None:
        least = risk.rows_needed_on_average(target.value)
        likely = risk.rows_needed_on_average(target.value, rate)
    else:
        least = risk.rows_needed(target.value, target.confidence)
        likely = risk.rows_needed(target.value, target.confidence, rate)
    said = f"{rows:,} calibration images certify nothing cheaper than the full network"
    if least is None or rows < least:
        said += f": that takes at least {_count(least)}, even if the policy errs on none of them"
    if rate == 0:
        return said
    erring = f"; the safest cheaper policy errs on {100 * rate:.2f} % of the validation images"
    if likely is None:
        return f"{said}{erring}, too near the target or above it for any number to do"
    return f"{said}{erring}, at which it takes about {_count(likely)}"


def _count(number: int | None) -> str:
    return "more than ten million" if number is None else f"{number:,}"


def statement(result: Calibrated) -> str:
    """What is promised of the chosen policy, in one sentence or two, and what it rests on."""
    target = result.target
    what = (
        "the share of inputs where the full network is right and the policy wrong"
        if target.loss == "harm"
        else "the share of inputs where the policy answers otherwise than the full network"
    )
    assumed = "provided that inputs are drawn from the distribution of the calibration images"
    if target.kind == "risk" and not result.chosen:
        return "The policy is the full network; it loses nothing against itself and saves nothing."
    if target.kind == "risk" and target.confidence is not None:
        return (
            f"With confidence {target.confidence:g} over draws of {result.rows:,} calibration images, "
            f"{what} is at most {target.value:g}, {assumed}."
        )
    if target.kind == "risk":
        return (
            f"On average over draws of {result.rows:,} calibration images, {what} is at most "
            f"{target.value:g}, {assumed}. A single draw, this one included, may exceed it."
        )
    return (
        f"No guarantee: the target was met on these {result.rows:,} calibration images, which were used "
        f"to choose; --risk gives one.{f' {result.remark}.' if result.remark else ''}"
    )
