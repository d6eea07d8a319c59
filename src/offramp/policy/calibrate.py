"""Choosing a policy on the calibration split, with or without a guarantee.

Nothing here is given the test split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack, assert_never

import numpy as np
from numpy.typing import NDArray

from offramp.errors import OfframpError, nearest
from offramp.policy import guarantees as risk
from offramp.policy import scoring
from offramp.policy.calibration import Chosen, Target
from offramp.policy.candidates import (
    BY_CONFIDENCE,
    Search,
    SplitLogits,
    candidates,
    loss_of,
    taken,
)
from offramp.policy.costs import Costs
from offramp.policy.limits import CONFIDENCE, LIMITS, Limits, number, words
from offramp.policy.policy import Policy

Floats = NDArray[np.floating]


def target(plain_macs: int, **limits: Unpack[Limits]) -> Target:
    """What is asked for, checked: `target(net.plain_macs, max_accuracy_loss=0.01)`; None counts as not
    given.

    A value may be a text, such as "1%", "2M" or "5ms". plain_macs: of the network without early exits,
    which a percentage of MACs is of. Raises OfframpError unless exactly one target is given, for an
    unknown name, and for a value out of its range.
    """
    for name in limits:
        if name not in Limits.__annotations__:
            raise OfframpError(f"unknown limit '{name}'{nearest(name, Limits.__annotations__)}")
    given = {str(name).replace("_", "-"): value for name, value in limits.items()}
    confidence, on_average = limits.get("confidence"), limits.get("on_average", False)
    for name in ("on-average", "without-labels"):
        if not isinstance(given.get(name, False), bool):
            raise OfframpError(f"{words(name)} is True or False; got {given[name]!r}")
    labels = not limits.get("without_labels", False)
    found = {
        kind: number(kind, limit, given[kind], plain_macs)
        for kind, limit in LIMITS.items()
        if given.get(kind) is not None
    }
    if len(found) != 1:
        got = " and ".join(map(words, found)) or "none"
        kinds = ", ".join(map(words, LIMITS))
        raise OfframpError(f"give exactly one target of {kinds}; got {got}")
    ((kind, value),) = found.items()
    if kind != "risk" and (on_average or not labels or confidence is not None):
        raise OfframpError(
            f"confidence, on average and without labels go with risk, not with {words(kind)}"
        )
    if on_average and confidence is not None:
        raise OfframpError("on average has no confidence; give one of the two")
    if kind != "risk" or on_average:
        return Target(kind, value, labels=labels)
    sure = CONFIDENCE.usual if confidence is None else confidence
    return Target(kind, value, number("confidence", CONFIDENCE, sure, plain_macs), labels)


@dataclass(frozen=True)
class MeasuredCosts:
    """Times of a network's parts, used in place of MACs.

    costs: nanoseconds an image of each part, by which policies are chosen: the 90th percentile of the
    rounds here (`infer.torch_timing`); of a device's file the mean or the 95th percentile
    (`stage_times.measured`).  median: the median of the rounds.  record: how and where they were
    measured, as JSON; its `doubts` say why they are not to be trusted.
    """

    costs: Costs
    median: Costs
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Performance:
    """A policy on a split. accuracy: 0 to 1; None where the target reads no labels.  macs: mean of a
    row.  risk: mean of the target's loss.  shares: of rows by exit.  seconds: mean of a row, by
    measured times; None without them.  late: seconds that 95 of 100 rows keep; None without times."""

    accuracy: float | None
    macs: float
    risk: float
    shares: tuple[float, ...]
    seconds: float | None = None
    late: float | None = None


@dataclass(frozen=True)
class Calibrated:
    """The outcome of a calibration.

    candidates: from the dearest to the cheapest, as ordered on validation.  measures: of each, on
    calibration.  chosen: index of one of them.  rows: of calibration.  bound: for a guarantee with
    confidence, what the chosen policy's risk is below; the full network's is 0 by definition.
    remark: where there is one, why nothing cheaper could be had, or how little the choice means.
    measured: the times that were given.  strata: how rows were weighted, where they were; measures are
    then of the shares of classes that were asked for.  survivors: as in `Search`.
    """

    target: Target
    candidates: tuple[Policy, ...]
    measures: tuple[Performance, ...]
    chosen: int
    rows: int
    bound: float | None
    remark: str | None
    measured: MeasuredCosts | None = None
    strata: risk.Strata | None = None
    survivors: bool = False

    @property
    def policy(self) -> Policy:
        return self.candidates[self.chosen]

    def record(self, plain_macs: int) -> Chosen:
        """What the chosen policy came to; nothing of the test split. plain_macs: of the backbone without
        early exits."""
        chosen, full = self.measures[self.chosen], self.measures[0]
        rare: dict[str, Any] = {}
        if self.strata is not None:
            rare["class_shares"] = tuple(self.strata.shares)
        if self.survivors:
            rare["survivors"] = True
        if self.measured is not None:
            spent = self.policy.macs(self.measured.median)
            median = 1e-9 * sum(n * share for n, share in zip(spent, chosen.shares, strict=True))
            rare |= {"mean_seconds": chosen.seconds, "full_seconds": full.seconds}
            rare["median_seconds"] = median
            if LIMITS[self.target.kind].stages == "p95":
                rare["p95_seconds"] = chosen.late
            rare["stages"] = dict(self.measured.record)
        return Chosen(
            images=self.rows,
            accuracy=chosen.accuracy,
            full_accuracy=full.accuracy,
            mean_macs=chosen.macs,
            plain_macs=plain_macs,
            loss=chosen.risk,
            leaving=chosen.shares,
            risk_below=self.bound,
            **rare,
        )


def calibrate(
    validation: SplitLogits,
    calibration: SplitLogits,
    costs: Costs,
    target: Target,
    search: Search = BY_CONFIDENCE,
    measured: MeasuredCosts | None = None,
    shares: Sequence[float] | None = None,
) -> Calibrated:
    """Make candidates on validation, and choose one on calibration. For a limit on loss: the cheapest
    policy that meets it. For a budget: of those that keep it, the one that loses least on validation; of
    near ties, those within a standard error, the dearest, as of some hundred images a cheap exit may be
    the best by luck.

    measured: for limits on latency; candidates are then those that lose least for their time.
    shares: of each class, 0 to 1: calibration rows are weighted so that classes count by them.

    Raises OfframpError for a target that no candidate meets, and for shares of a class of which there
    is no row, or of a target that reads no labels.
    """
    strata = None if shares is None else _strata(calibration, target, shares)
    if search.temperature and target.loss == "disagreement":
        raise OfframpError("temperature is fitted on labels; leave it out if the target needs no labels")
    times = None if measured is None else measured.costs
    found = candidates(validation, times or costs, search, target.loss)
    leaves = [policy.leaves(calibration.logits) for policy in found]
    answers = scoring.answers(scoring.all_said(search.score, calibration.logits))
    lost = loss_of(target.loss, answers, calibration.labels)
    labeled = target.loss != "disagreement"
    wrong = loss_of("wrong", answers, calibration.labels) if labeled else None
    measures = tuple(
        _measure(policy, out, costs, times, lost, wrong, strata)
        for policy, out in zip(found, leaves, strict=True)
    )
    bound, remark = None, None
    match LIMITS[target.kind].kept:
        case "guarantee":
            lose = np.column_stack([taken(lost, out) for out in leaves])
            chosen = _certified(lose, target, strata)
            if chosen and target.confidence is not None and strata is not None:
                bound = strata.upper_bound(measures[chosen].risk, target.confidence)
            elif chosen and target.confidence is not None:
                bound = risk.upper_bound(int(lose[:, chosen].sum()), len(lose), target.confidence)
            if not chosen and len(found) > 1:
                first = float(_lose(found[1:2], validation, target, search).mean())
                rows = len(lose) if strata is None else int(strata.effective)
                remark = _too_small(target, rows, first)
        case "loss":
            more = np.column_stack([taken(lost, out) - lost[:, -1] for out in leaves])
            chosen = risk.met_on_average(more[:, 1:], target.value, strata)
        case "accuracy":
            chosen = _cheapest(measures, target)
        case "budget":
            fits = _within(measures, target, measured)
            chosen = fits[_least(_lose([found[i] for i in fits], validation, target, search))]
        case other:
            assert_never(other)
    if len(found) == 1:
        remark = "the trial has no exit that is cheaper than the full network"
        if validation.logits.shape[1] > 1:
            remark += ", heads included; attach lighter ones (linear, mlp) and train again"
    return Calibrated(
        target,
        candidates=found,
        measures=measures,
        chosen=chosen,
        rows=len(calibration.labels),
        bound=bound,
        remark=remark,
        measured=measured,
        strata=strata,
        survivors=search.survivors,
    )


def _strata(rows: SplitLogits, target: Target, shares: Sequence[float]) -> risk.Strata:
    """Raises OfframpError where the rows cannot be weighted so."""
    if target.loss == "disagreement":
        raise OfframpError(
            "weights of classes are by labels; leave them out if the target needs no labels"
        )
    try:
        return risk.Strata(rows.labels, tuple(shares))
    except ValueError as error:
        raise OfframpError(
            f"no calibration image is of class {error}, so nothing can be said of it; give more "
            "calibration images, or leave the weights out"
        ) from None


def _measure(
    policy: Policy,
    leaves: NDArray[np.integer],
    costs: Costs,
    times: Costs | None,
    lost: Floats,
    wrong: Floats | None,
    strata: risk.Strata | None,
) -> Performance:
    weights = None if strata is None else strata.weights
    shares = np.bincount(leaves, weights, minlength=len(policy.exits)) / len(leaves)
    spent = None if times is None else policy.macs(times)  # in nanoseconds
    return Performance(
        accuracy=None if wrong is None else 1 - float(np.average(taken(wrong, leaves), weights=weights)),
        macs=float(shares @ np.asarray(policy.macs(costs), dtype=np.float64)),
        risk=float(np.average(taken(lost, leaves), weights=weights)),
        shares=tuple(float(s) for s in shares),
        seconds=None if spent is None else 1e-9 * float(shares @ np.asarray(spent, np.float64)),
        late=None if spent is None else _late(shares, spent),
    )


def _late(shares: Floats, spent: Sequence[int]) -> float:
    """Seconds that 95 of 100 rows keep. shares: of rows by exit.  spent: nanoseconds by exit."""
    order = np.argsort(spent, kind="stable")
    reached = np.cumsum(shares[order])
    at = int(np.searchsorted(reached, 0.95 * reached[-1] - 1e-12))
    return 1e-9 * spent[int(order[at])]


def _certified(lose: Floats, target: Target, strata: risk.Strata | None) -> int:
    """The boldest certified candidate; 0, the full network, has no risk and needs no test."""
    bolder = lose[:, 1:]
    if not bolder.size:
        return 0
    if target.confidence is None:
        return risk.conformal(bolder, target.value, strata)
    return risk.learn_then_test(bolder, target.value, target.confidence, strata)


def _lose(policies: Sequence[Policy], validation: SplitLogits, target: Target, search: Search) -> Floats:
    """What each loses on each row of validation: [N, P]."""
    told = scoring.answers(scoring.all_said(search.score, validation.logits))
    lost = loss_of(target.loss, told, validation.labels)
    return np.column_stack([taken(lost, policy.leaves(validation.logits)) for policy in policies])


def _least(lose: Floats) -> int:
    """The first, and so the dearest, column whose mean is within a standard error of the least one.
    The error is that of their difference, row by row."""
    more = lose - lose[:, [int(lose.mean(0).argmin())]]
    error = more.std(0, ddof=1) / np.sqrt(len(more)) if len(more) > 1 else np.inf
    return int((more.mean(0) <= error).argmax())


def _within(
    measures: Sequence[Performance], target: Target, measured: MeasuredCosts | None
) -> list[int]:
    """The candidates that keep within a budget of MACs or time on calibration."""
    limit = LIMITS[target.kind]
    spent = [getattr(m, limit.spent) for m in measures]
    fits = [i for i, each in enumerate(spent) if each <= target.value]
    if fits:
        return fits
    if limit.unit == "MACs":
        raise OfframpError(
            f"no policy costs at most {target.value:,.0f} MACs an image; the cheapest costs "
            f"{min(spent):,.0f}, so allow that or place an exit earlier"
        )
    # Times of a busy machine are often why nothing fits, and would be taken for the device's.
    doubts = () if measured is None else measured.record.get("doubts", ())
    raise OfframpError(
        f"no policy takes at most {1000 * target.value:.4g} ms an image; the fastest takes "
        f"{1000 * min(spent):.4g} ms, so allow that, place an exit earlier or take another batch"
        + "".join(f"; but {doubt}" for doubt in doubts)
    )


def _cheapest(measures: Sequence[Performance], target: Target) -> int:
    """The last, and so by validation the cheapest, candidate that meets the target on calibration."""
    floor = target.value - 1e-12
    fits = [i for i, m in enumerate(measures) if m.accuracy is not None and m.accuracy >= floor]
    if not fits:
        best = max(m.accuracy or 0.0 for m in measures)
        raise OfframpError(
            f"no policy reaches accuracy {target.value:g} on the calibration split; the best reaches "
            f"{best:.4f}, so ask for less or train longer"
        )
    return fits[-1]


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
    """What is promised of the chosen policy, in a few sentences, and what it rests on."""
    record = {} if result.measured is None else result.measured.record
    if "device" not in record:
        return _promise(result)
    of = "95th percentiles" if record["of"] == "p95" else "means"
    return (
        f"{_promise(result)} Solved for {record['device']}, by {of} of its stages' times "
        f"({record['precision']}, batch {record['batch']}, threads {record['threads']})."
    )


def _promise(result: Calibrated) -> str:
    target = result.target
    what = (
        "the share of inputs where the full network is right and the policy wrong"
        if target.loss == "harm"
        else "the share of inputs where the policy and the full network answer differently"
    )
    assumed = "provided that inputs are drawn from the distribution of the calibration images"
    images = f"{result.rows:,} calibration images"
    if result.strata is not None:
        assumed = (
            "provided that inputs of each class are drawn as its calibration images are, and classes "
            "with their shares of training"
        )
        images += f" (weighted by class, worth {result.strata.effective:,.0f})"
    kept = LIMITS[target.kind].kept
    if kept == "guarantee" and not result.chosen:
        said = "The policy is the full network; it loses nothing against itself and saves nothing"
        return f"{said}: {result.remark}." if result.remark else f"{said}."
    if kept == "guarantee" and target.confidence is not None:
        return (
            f"With confidence {target.confidence:g} over draws of {images}, "
            f"{what} is at most {target.value:g}, {assumed}."
        )
    if kept == "guarantee":
        return (
            f"On average over draws of {images}, {what} is at most "
            f"{target.value:g}, {assumed}. A single draw, this one included, may exceed it."
        )
    spare = ", with a standard error and an image to spare" if kept == "loss" else ""
    return (
        f"No guarantee: the target was met on these {images}, which were used "
        f"to choose{spare}; a limit on risk gives one{f'; {result.remark}' if result.remark else ''}."
    )
