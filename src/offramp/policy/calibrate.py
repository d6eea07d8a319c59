"""Choosing a policy on the calibration split, with or without a guarantee.

Nothing here sees the test split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack, assert_never

import numpy as np
from numpy.typing import NDArray

from offramp.errors import OfframpError, nearest, with_article
from offramp.policy import guarantees, scoring
from offramp.policy.calibration import Chosen, Target
from offramp.policy.candidates import (
    BY_CONFIDENCE,
    Search,
    SplitLogits,
    candidates,
    loss_of,
    where_left,
)
from offramp.policy.costs import Costs
from offramp.policy.limits import COMPANIONS, CONFIDENCE, LIMITS, Limits, refuse_below, words
from offramp.policy.policy import Policy

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


def target(plain_macs: int, **limits: Unpack[Limits]) -> Target:
    """The one limit among those given by keyword, checked.

    Args:
        plain_macs: MACs of the network without early exits, which a percentage of MACs is of.
        limits: Values, or texts such as "1%", "2M" or "5ms"; None counts as not given.

    Raises:
        OfframpError: Not exactly one limit is given, a name is unknown, or a value out of its range.

    Example:
        >>> target(1000, max_mean_macs="40%")
        Target(kind='max-mean-macs', value=400.0, confidence=None, labels=True)
    """
    values = {str(name).replace("_", "-"): value for name, value in limits.items()}
    for name in values:
        if name not in LIMITS and name not in COMPANIONS:
            options = [option.replace("-", "_") for option in (*LIMITS, *COMPANIONS)]
            name = name.replace("-", "_")
            raise OfframpError(f"unknown limit '{name}'{nearest(name, options)}")
    for name in ("on-average", "without-labels"):
        if not isinstance(values.get(name, False), bool):
            raise OfframpError(f"{words(name)} is True or False; got {values[name]!r}")
    confidence, on_average = values.get("confidence"), values.get("on-average", False)
    labels = not values.get("without-labels", False)
    numbers = {
        kind: limit.read(words(kind), values[kind], plain_macs)
        for kind, limit in LIMITS.items()
        if values.get(kind) is not None
    }
    if len(numbers) != 1:
        first, *others = (f"`{kind.replace('-', '_')}`" for kind in numbers or LIMITS)
        several = f"not {first} and {' and '.join(others)}"
        none = f"such as {first} 0.01, one point at most; others are {', '.join(others)}"
        raise OfframpError(f"name one limit, {several if numbers else none}")
    ((kind, value),) = numbers.items()
    guaranteed = LIMITS[kind].by == "guarantee"
    if not labels and kind != "risk":
        raise OfframpError(f"without labels goes with risk, not with {words(kind)}")
    if not guaranteed and (on_average or confidence is not None):
        raise OfframpError(f"confidence and on average go with a risk, not with {words(kind)}")
    if on_average and confidence is not None:
        raise OfframpError("on average has no confidence; give one of the two")
    if not guaranteed or on_average:
        return Target(kind, value, labels=labels)
    level = CONFIDENCE.example if confidence is None else confidence
    return Target(kind, value, CONFIDENCE.read("confidence", level), labels)


@dataclass(frozen=True)
class MeasuredCosts:
    """Times of a network's parts, used in place of MACs."""

    # nanoseconds an image of each part, by which policies are chosen: the 90th percentile of the rounds
    # here (`infer.torch_timing`); of a device's file the mean or the 95th percentile
    # (`stage_times.measured`)
    costs: Costs
    median: Costs  # the median of the rounds
    # how and where they were measured, as JSON; its `doubts` say why they are not to be trusted
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Performance:
    """A policy on a split."""

    accuracy: float | None  # 0 to 1; None where the target reads no labels
    macs: float  # mean of a row
    risk: float  # mean of the target's loss
    shares: tuple[float, ...]  # of rows by exit
    seconds: float | None = None  # mean of a row, by measured times; None without them
    late: float | None = None  # seconds that 95 of 100 rows keep; None without measured times


@dataclass(frozen=True)
class Calibrated:
    """The outcome of a calibration."""

    target: Target  # what the policy was chosen for
    candidates: tuple[Policy, ...]  # from the dearest to the cheapest, as ordered on validation
    measures: tuple[Performance, ...]  # each candidate's performance on calibration
    chosen: int  # the index of one of them
    rows: int  # how many the calibration split has
    # for a guarantee with confidence, what the chosen policy's risk is below; the full network's is 0 by
    # definition
    bound: float | None
    remark: str | None  # why nothing cheaper could be had, or how little the choice means
    measured: MeasuredCosts | None = None  # the times that policies were chosen by
    # how rows were weighted, where they were; measures are then of these shares of classes
    strata: guarantees.Strata | None = None
    survivors: bool = False  # as in `Search`
    noun: str = "image"  # what a row is called

    @property
    def policy(self) -> Policy:
        return self.candidates[self.chosen]

    def record(self, plain_macs: int) -> Chosen:
        """What the chosen policy came to, without the test split. plain_macs: of the backbone."""
        chosen, full = self.measures[self.chosen], self.measures[0]
        rare: dict[str, Any] = {}
        if self.strata is not None:
            rare["class_shares"] = tuple(self.strata.shares)
        if self.survivors and self.policy.score != "fixed":
            rare["survivors"] = True
        if self.measured is not None:
            nanoseconds = self.policy.macs(self.measured.median)
            median = 1e-9 * sum(n * share for n, share in zip(nanoseconds, chosen.shares, strict=True))
            rare |= {"mean_seconds": chosen.seconds, "full_seconds": full.seconds}
            rare |= {"median_seconds": median, "stages": dict(self.measured.record)}
        if (limit := LIMITS[self.target.kind]).by == "budget":
            rare[limit.noted] = limit.spent(chosen)
        always = {
            "images": self.rows,
            "accuracy": chosen.accuracy,
            "full_accuracy": full.accuracy,
            "mean_macs": chosen.macs,
            "plain_macs": plain_macs,
            "loss": chosen.risk,
            "leaving": chosen.shares,
            "risk_below": self.bound,
        }
        return Chosen(**{**always, **rare})


def calibrate(
    validation: SplitLogits,
    calibration: SplitLogits,
    costs: Costs,
    target: Target,
    search: Search = BY_CONFIDENCE,
    measured: MeasuredCosts | None = None,
    shares: Sequence[float] | None = None,
) -> Calibrated:
    """Make candidates on validation, and choose one on calibration.

    For a limit on loss: the cheapest policy that keeps it. For a budget: of those that keep it, the one
    that loses least on validation; of near ties, those within a standard error, the dearest, as of some
    hundred images a cheap exit may be the best by luck.

    Raises OfframpError where no candidate keeps the limit. measured: times, for limits on latency;
    shares: of each class, by which calibration rows are weighted."""
    check_labels(target, search.temperature, shares is not None)
    strata = None if shares is None else _strata(calibration, shares)
    labeled = target.loss != "disagreement"
    policies = candidates(validation, costs if measured is None else measured.costs, search, target.loss)
    leaves = [policy.leaves(calibration.logits) for policy in policies]
    answers = calibration.answers(search.score)
    lost = loss_of(target.loss, answers, calibration.labels)
    wrong = loss_of("wrong", answers, calibration.labels) if labeled else None
    weights = None if strata is None else strata.weights

    def measure(policy: Policy, left: Ints) -> Performance:
        shares = np.bincount(left, weights, minlength=len(policy.exits)).astype(np.float64)
        shares /= shares.sum()  # of weights, whose sum is the number of rows but for rounding
        nanoseconds = None if measured is None else policy.macs(measured.costs)
        errors = None if wrong is None else where_left(wrong, left)
        return Performance(
            accuracy=None if errors is None else 1 - float(np.average(errors, weights=weights)),
            macs=float(shares @ np.asarray(policy.macs(costs), dtype=np.float64)),
            risk=float(np.average(where_left(lost, left), weights=weights)),
            shares=tuple(shares.tolist()),
            seconds=None
            if nanoseconds is None
            else 1e-9 * float(shares @ np.asarray(nanoseconds, np.float64)),
            late=None if nanoseconds is None else _late(shares, nanoseconds),
        )

    measures = tuple(map(measure, policies, leaves))
    bound, remark = None, None
    match LIMITS[target.kind].by:
        case "guarantee":
            loses = np.column_stack([where_left(lost, left) for left in leaves])
            chosen = _certified(loses, target, strata)
            if chosen and target.confidence is not None and strata is not None:
                bound = strata.upper_bound(measures[chosen].risk, target.confidence)
            elif chosen and target.confidence is not None:
                bound = guarantees.bound_of(loses[:, chosen], target.confidence)
            if not chosen and len(policies) > 1:
                first = float(_losses(policies[1:2], validation, target, search).mean())
                rows = len(loses) if strata is None else int(strata.effective)
                remark = _too_small(target, rows, first, validation.noun)
        case "loss":
            more = np.column_stack([where_left(lost, left) - lost[:, -1] for left in leaves])
            chosen = guarantees.met_on_average(more[:, 1:], target.value, strata)
        case "accuracy":
            chosen = _cheapest(measures, target)
        case "budget":
            fits = _within(measures, target, measured)
            chosen = fits[_least(_losses([policies[i] for i in fits], validation, target, search))]
        case other:
            assert_never(other)
    policies = (*policies[:chosen], _alone(policies[chosen]), *policies[chosen + 1 :])
    if len(policies) == 1:
        remark = "the trial has no exit that is cheaper than the full network"
        if validation.logits.shape[1] > 1:
            remark += ", heads included; attach lighter ones (linear, mlp) and train again"
    return Calibrated(
        target,
        policies,
        measures,
        chosen,
        rows=len(calibration.labels),
        bound=bound,
        remark=remark,
        measured=measured,
        strata=strata,
        survivors=search.survivors,
        noun=calibration.noun,
    )


def _alone(policy: Policy) -> Policy:
    """A policy by which every image leaves at one exit, whatever its score, as the score `fixed`; it
    leaves alike. Any other as it is, and one whose exits answer together."""
    at = policy.takes_all
    if at is None or any(t is not None for t in policy.thresholds[:at]):
        return policy
    if (at and scoring.SCORES[policy.score].together) or policy.several:
        return policy
    thresholds = [0.0 if i == at else None for i in range(len(policy.exits))]
    return Policy("fixed", policy.exits, thresholds, policy.temperatures, carry=policy.carry)


def check_labels(target: Target, temperature: bool, weighted: bool) -> None:
    """Raise OfframpError for choices that read labels, beside a target that reads none."""
    if target.loss == "disagreement" and temperature:
        raise OfframpError("temperature is fitted on labels; leave it out if the target needs no labels")
    if target.loss == "disagreement" and weighted:
        raise OfframpError(
            "weights of classes are by labels; leave them out if the target needs no labels"
        )


def _strata(rows: SplitLogits, shares: Sequence[float]) -> guarantees.Strata:
    """Raises OfframpError where the rows cannot be weighted so."""
    if rows.several:
        raise OfframpError(
            "weights of classes are of one class an image, and these have several labels; leave them out"
        )
    try:
        return guarantees.Strata(rows.labels, tuple(shares))
    except ValueError as error:
        raise OfframpError(
            f"no calibration {rows.noun} is of class {error}, so nothing can be said of it; give more "
            f"calibration {rows.noun}s, or leave the weights out"
        ) from None


def _late(shares: Floats, nanoseconds: Sequence[int]) -> float:
    """Seconds that 95 of 100 rows keep. shares, nanoseconds: by exit."""
    order = np.argsort(nanoseconds, kind="stable")
    reached = np.cumsum(shares[order])
    at = int(np.searchsorted(reached, 0.95 * reached[-1] - 1e-12))
    return 1e-9 * nanoseconds[int(order[at])]


def _certified(losses: Floats, target: Target, strata: guarantees.Strata | None) -> int:
    """The boldest certified candidate; 0, the full network, has no risk and needs no test."""
    bolder = losses[:, 1:]
    if not bolder.size:
        return 0
    if target.confidence is None:
        return guarantees.conformal(bolder, target.value, strata)
    return guarantees.learn_then_test(bolder, target.value, target.confidence, strata)


def _losses(
    policies: Sequence[Policy], validation: SplitLogits, target: Target, search: Search
) -> Floats:
    """What each loses on each row of validation: [N, P]."""
    lost = loss_of(target.loss, validation.answers(search.score), validation.labels)
    return np.column_stack([where_left(lost, policy.leaves(validation.logits)) for policy in policies])


def _least(losses: Floats) -> int:
    """The first, and so the dearest, column whose mean is within a standard error of the least one.
    The error is that of their difference, row by row."""
    more = losses - losses[:, [int(losses.mean(0).argmin())]]
    error = more.std(0, ddof=1) / np.sqrt(len(more)) if len(more) > 1 else np.inf
    return int((more.mean(0) <= error).argmax())


def _within(
    measures: Sequence[Performance],
    target: Target,
    measured: MeasuredCosts | None,
) -> list[int]:
    """The candidates that keep a budget on calibration."""
    limit = LIMITS[target.kind]
    spent = [amount for measure in measures if (amount := limit.spent(measure)) is not None]
    if not spent:
        raise ValueError(f"nothing is measured of what {target.kind} limits")
    fits = [i for i, amount in enumerate(spent) if amount <= target.value]
    if not fits:
        # Times of a busy machine are often why nothing fits, and would be taken for the device's.
        doubts = () if measured is None or not limit.stages else measured.record.get("doubts", ())
        refuse_below(target.kind, target.value, min(spent), doubts)
    return fits


def _cheapest(measures: Sequence[Performance], target: Target) -> int:
    """The last, and so by validation the cheapest, candidate that meets the target on calibration."""
    floor = target.value - 1e-12
    fits = [i for i, m in enumerate(measures) if m.accuracy is not None and m.accuracy >= floor]
    if not fits:
        best = max(m.accuracy or 0.0 for m in measures)
        raise OfframpError(
            f"no policy reaches accuracy {target.value:g} on the calibration split; the best reaches "
            f"{math.floor(1e4 * best) / 1e4:.4f}, so ask for less or train longer"
        )
    return fits[-1]


def _too_small(target: Target, rows: int, rate: float, noun: str) -> str:
    """Why nothing was certified, and how many rows would do. rate: of the safest candidate, seen on
    validation."""
    if target.confidence is None:
        least = guarantees.rows_needed_on_average(target.value)
        likely = guarantees.rows_needed_on_average(target.value, rate)
    else:
        least = guarantees.rows_needed(target.value, target.confidence)
        likely = guarantees.rows_needed(target.value, target.confidence, rate)
    reason = f"{rows:,} calibration {noun}s certify nothing cheaper than the full network"
    if least is None or rows < least:
        reason += f": that takes at least {_count(least)}, even if the policy errs on none of them"
    if rate == 0:
        return reason
    erring = f"; the safest cheaper policy errs on {100 * rate:.2f} % of the validation {noun}s"
    if likely is None:
        return f"{reason}{erring}, too near the target or above it for any number to do"
    return f"{reason}{erring}, at which it takes about {_count(likely)}"


def _count(number: int | None) -> str:
    return "more than ten million" if number is None else f"{number:,}"


def statement(outcome: Calibrated) -> str:
    """What is promised of the chosen policy, in a few sentences, and what it rests on."""
    record = {} if outcome.measured is None else outcome.measured.record
    if "device" not in record:
        return _promise(outcome)
    of = "95th percentiles" if record["of"] == "p95" else "means"
    return (
        f"{_promise(outcome)} Solved for {record['device']}, by {of} of its stages' times "
        f"({record['precision']}, batch {record['batch']}, threads {record['threads']})."
    )


def _promise(outcome: Calibrated) -> str:
    target, rule, noun = outcome.target, LIMITS[outcome.target.kind], outcome.noun
    risk = {
        "harm": "the share of inputs where the full network is right and the policy wrong",
        "label-harm": "the share of labels that the full network gets right and the policy wrong",
        "miss-harm": "the mean over inputs of the share of their labels that the full network finds and "
        "the policy misses",
    }.get(target.loss, "the share of inputs where the policy and the full network answer differently")
    assumed = (
        f"provided that inputs are drawn from the distribution of the calibration {noun}s, and so are "
        "exchangeable with them"
    )
    images = f"{outcome.rows:,} calibration {noun}s"
    if outcome.strata is not None:
        assumed = (
            f"provided that inputs of each class are drawn as its calibration {noun}s are, and classes "
            "with their shares of training"
        )
        images += f" (weighted by class, worth {outcome.strata.effective:,.0f})"
    if rule.by == "guarantee" and not outcome.chosen:
        reason = f": {outcome.remark}" if outcome.remark else ""
        return (
            f"The policy is the full network; it loses nothing against itself and saves nothing{reason}."
        )
    if rule.by == "guarantee" and target.confidence is not None:
        return (
            f"With confidence {target.confidence:g} over draws of {images}, "
            f"{risk} is at most {target.value:g}, {assumed}."
        )
    if rule.by == "guarantee":
        return (
            f"On average over draws of {images}, {risk} is at most "
            f"{target.value:g}, {assumed}. A single draw, this one included, may exceed it."
        )
    spare = f", with a standard error and {with_article(noun)} to spare" if rule.by == "loss" else ""
    return (
        f"No guarantee: the target ({target.words}) was met on these {images}, which were used "
        f"to choose{spare}; a limit on risk gives one{f'; {outcome.remark}' if outcome.remark else ''}."
    )
