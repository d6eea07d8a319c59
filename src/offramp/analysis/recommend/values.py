"""The numbers that a goal ranks by: of every candidate, one a seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from offramp.analysis.measures import MEASURES, Measure
from offramp.analysis.recommend.operating import (
    Choice,
    best_accuracy,
    cheapest,
    default_target,
    most_accurate_within,
)
from offramp.analysis.recommend.records import Candidate, Facts, Wish

VALUES = ["model", "strategy", "seed", "value", "source", "measured"]
MEMORY = ("memory-gpu-max", "memory-cpu-max")
ENERGY = ("energy", "energy-gpu", "energy-cpu")
MACS = Measure("macs", "Mean MACs of an image", "MMAC", "lower", "quality", False, True, 1e-6)
BALANCE = Measure("balance", "Distance from the best", "of 1", "lower", "quality", False)
FEWER = "it lacks exits that others have, so it has no mean over them"


@dataclass(frozen=True, eq=False)
class Values:
    """frame: columns VALUES.  use: how a candidate is used, and its mean test accuracy so.  ruled_out:
    who has no value, and why.  counted: whether values are exact, so that a difference that is the same
    in every seed is one.  target: the calibration accuracy that places to leave were chosen for."""

    measure: Measure
    frame: pd.DataFrame
    use: Mapping[Candidate, tuple[str, float]]
    ruled_out: Mapping[Candidate, str]
    notes: tuple[str, ...] = ()
    counted: bool = False
    target: float | None = None


def pairs(frame: pd.DataFrame) -> list[Candidate]:
    """The candidate of each row."""
    return list(zip(frame["model"].astype(str), frame["strategy"].astype(str), strict=True))


def only(frame: pd.DataFrame, candidates: Collection[Candidate]) -> pd.DataFrame:
    """The rows of these candidates."""
    return frame.loc[np.array([c in candidates for c in pairs(frame)], dtype=bool)]


def values(facts: Facts, wish: Wish, data: str, allowed: Sequence[Candidate]) -> Values:
    """What `wish.goal` ranks the allowed candidates by."""
    points = only(facts.points[facts.points["data"] == data], allowed)
    match wish.goal:
        case "accuracy":
            if wish.max_macs is None:
                return _accuracy(facts, data, allowed)
            note = "Each network is used where it is most accurate within the MACs allowed."
            chosen = most_accurate_within(points, wish.max_macs)
            return _chosen(MEASURES["accuracy-test"], chosen, allowed, "accuracy", note)
        case "latency":
            return _latency(points, wish, allowed)
        case "training-time":
            return _observed(facts, data, ("seconds-written",), allowed)
        case "memory":
            return _observed(facts, data, MEMORY, allowed)
        case "energy":
            return _observed(facts, data, ENERGY, allowed)
        case "balanced":
            return _balanced(facts, wish, data, allowed)


def _observed(facts: Facts, data: str, names: Sequence[str], allowed: Sequence[Candidate]) -> Values:
    """Overall observations of the first of these measures that there is."""
    for name in names:
        rows = facts.observed(name)
        rows = only(rows[rows["data"] == data], allowed)
        if len(rows):
            have = set(pairs(rows))
            out = {c: "there is no reading of it" for c in allowed if c not in have}
            return Values(MEASURES[name], rows[VALUES], {}, out)
    return Values(MEASURES[names[0]], pd.DataFrame(columns=VALUES), {}, {})


def _accuracy(facts: Facts, data: str, allowed: Sequence[Candidate]) -> Values:
    found = _observed(facts, data, ("accuracy-test",), allowed)
    note = "Accuracy is the mean over exits; with --max-macs it is that of the best place to leave."
    return Values(found.measure, found.frame, {}, dict.fromkeys(found.ruled_out, FEWER), (note,))


def _latency(points: pd.DataFrame, wish: Wish, allowed: Sequence[Candidate]) -> Values:
    target = wish.min_accuracy if wish.min_accuracy is not None else default_target(points)
    if target is None:
        return Values(MACS, pd.DataFrame(columns=VALUES), {}, {})
    asked = "as asked" if wish.min_accuracy is not None else "a point less than the best final exit"
    note = (
        f"Each network leaves where it is cheapest with {100 * target:.1f} % ({asked}) on calibration "
        "data; offramp calibrate chooses with more care."
    )
    found = _chosen(MACS, cheapest(points, target, wish.max_macs), allowed, "macs", note)
    out = {}
    for candidate in found.ruled_out:
        best = best_accuracy(only(points, [candidate]), wish.max_macs)
        reach = "nothing within these MACs" if best is None else f"{100 * best:.1f} % at most"
        out[candidate] = f"it reaches {reach}, of {100 * target:.1f} %"
    return Values(MACS, found.frame, found.use, out, found.notes, counted=True, target=target)


def _chosen(
    measure: Measure,
    chosen: Mapping[Candidate, Choice],
    allowed: Sequence[Candidate],
    column: str,
    note: str,
) -> Values:
    frames = [choice.rows.assign(value=choice.rows[column], measured=True) for choice in chosen.values()]
    rows = pd.concat(frames)[VALUES] if frames else pd.DataFrame(columns=VALUES)
    use = {c: (choice.use, float(choice.rows["accuracy"].mean())) for c, choice in chosen.items()}
    out = {c: "nowhere does it meet what is asked" for c in allowed if c not in chosen}
    return Values(measure, rows, use, out, (note,))


def _balanced(facts: Facts, wish: Wish, data: str, allowed: Sequence[Candidate]) -> Values:
    """The mean, seed by seed, of how far a candidate is from the best (0) on the way to the worst (1) in
    accuracy, compute and training time, and in memory and energy where they were measured. Candidates
    that one of these rules out are out."""
    latency = Wish("latency", wish.min_accuracy, wish.max_macs)
    time = _observed(facts, data, ("seconds-written",), allowed)
    if not time.frame["measured"].all():  # an estimated time is no measurement, counted MACs are exact
        time = _observed(facts, data, ("macs-written",), allowed)
    parts = {
        "accuracy": _accuracy(facts, data, allowed),
        "inference": values(facts, latency, data, allowed),
        "training": time,
        "memory": _observed(facts, data, MEMORY, allowed),
        "energy": _observed(facts, data, ENERGY, allowed),
    }
    parts = {n: p for n, p in parts.items() if len(p.frame) and p.frame["measured"].all()}
    out: dict[Candidate, str] = {}
    for name, part in parts.items():
        if name == "inference" and wish.min_accuracy is None and wish.max_macs is None:
            continue  # nothing was asked for: who falls short comes last
        out |= {c: f"{name}: {why}" for c, why in part.ruled_out.items() if c not in out}
    left = [c for c in allowed if c not in out]
    seeds = sorted({seed for part in parts.values() for seed in part.frame["seed"]})
    far = [_distances(part, left, seeds) for part in parts.values()]
    if not far or not left:
        return Values(BALANCE, pd.DataFrame(columns=VALUES), {}, out)
    both = pd.concat(far).groupby(["model", "strategy", "seed"], sort=True)["far"]
    frame = both.agg(["mean", "count"]).reset_index().rename(columns={"mean": "value"})
    frame = frame[frame["count"] == len(far)].assign(source="", measured=True)
    titles = ", ".join(part.measure.title for part in parts.values())
    inference = parts["inference"].notes if "inference" in parts else ()
    notes = (f"The mean over: {titles}.", *inference)
    return Values(BALANCE, frame[VALUES], {}, out, notes)


def _distances(part: Values, left: Sequence[Candidate], seeds: Sequence[int]) -> pd.DataFrame:
    """How far each is from the best of its seed, 0, on the way to the worst, 1. Who is nowhere as
    accurate as MACs are counted for has 1."""
    rows = only(part.frame, left)
    groups = rows.groupby("seed")["value"]
    low, high = groups.transform("min"), groups.transform("max")
    best = low if part.measure.better == "lower" else high
    far = ((rows["value"] - best).abs() / (high - low).where(high > low, 1.0)).astype(float)
    rows = rows.assign(far=far)
    if part.measure is not MACS:
        return rows
    lacking = [c for c in left if c not in set(pairs(rows))]
    more = [{"model": m, "strategy": s, "seed": x, "far": 1.0} for m, s in lacking for x in seeds]
    return pd.concat([rows, pd.DataFrame(more)], ignore_index=True) if more else rows
