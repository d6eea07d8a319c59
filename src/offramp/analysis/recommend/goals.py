"""The numbers that a goal ranks by, of every candidate one a seed: costs, accuracies, and ways to use a
trained network, which leaves at one exit or where confidence reaches a threshold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from offramp.analysis.measures import MEASURES, Measure, Numbers, observations
from offramp.paper.guidelines import Goal

POINTS = ("model", "data", "strategy", "seed", "point", "macs", "held_out", "accuracy", "source")
# point: `exit 2` or `confidence >= 0.8`.  macs: of an image, on average, on test.  held_out, accuracy:
# on calibration data, where points are chosen, and on test.  source: a key of the weights in use.
LESS = 0.01  # accuracy to give up when no target is named


Candidate = tuple[str, str]  # model, strategy


@dataclass(frozen=True, eq=False)
class Facts:
    """What advice rests on. points: of POINTS, may be empty.  heads_only: strategies that
    leave a given backbone as it is."""

    numbers: Numbers
    points: pd.DataFrame
    heads_only: frozenset[str] = frozenset()
    _known: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)

    def observed(self, measure: str) -> pd.DataFrame:
        """Overall observations of a measure (columns measures.OBSERVATION), worked out once."""
        if measure not in self._known:
            rows = observations(self.numbers, MEASURES[measure])
            self._known[measure] = rows[rows["exit"].isna()]
        return self._known[measure]


@dataclass(frozen=True)
class Preference:
    """What is asked for. min_accuracy: 0 to 1.  max_macs: of an image, on average."""

    goal: Goal
    min_accuracy: float | None = None
    max_macs: float | None = None
    frozen_backbone: bool = False


@dataclass(frozen=True, eq=False)
class ChosenPoint:
    """One point of a candidate. rows: of POINTS, a row a seed."""

    use: str
    rows: pd.DataFrame


def _means(points: pd.DataFrame) -> pd.DataFrame:
    keys = ["model", "strategy", "point"]
    return points.groupby(keys, sort=True)[["macs", "held_out", "accuracy"]].mean().reset_index()


def best_accuracy(points: pd.DataFrame, max_macs: float | None) -> float | None:
    """The highest mean calibration accuracy of any point within the MACs; None where there is none."""
    means = _means(points)
    if max_macs is not None:
        means = means[means["macs"] <= max_macs]
    return float(means["held_out"].max()) if len(means) else None


def default_target(points: pd.DataFrame) -> float | None:
    """A point less than the best mean accuracy (on calibration data) of any final exit."""
    exits = points[points["point"].str.startswith("exit ")]
    if exits.empty:
        return None
    keys = ["model", "strategy", "seed"]
    last = exits.loc[exits.groupby(keys)["macs"].idxmax()]
    return float(last.groupby(["model", "strategy"])["held_out"].mean().max()) - LESS


def cheapest(
    points: pd.DataFrame, target: float, max_macs: float | None
) -> Mapping[Candidate, ChosenPoint]:
    """Of each candidate, the point with the fewest MACs that reaches the target on calibration data."""
    means = _means(points)
    means = means[means["held_out"] >= target]
    if max_macs is not None:
        means = means[means["macs"] <= max_macs]
    return _first(points, means.sort_values(["macs", "point"], kind="stable"))


def most_accurate_within(points: pd.DataFrame, max_macs: float) -> Mapping[Candidate, ChosenPoint]:
    """Of each candidate, the point with the highest calibration accuracy within the MACs."""
    means = _means(points)
    means = means[means["macs"] <= max_macs]
    order = means.sort_values(["held_out", "macs"], ascending=[False, True], kind="stable")
    return _first(points, order)


def _first(points: pd.DataFrame, order: pd.DataFrame) -> dict[Candidate, ChosenPoint]:
    chosen = order.drop_duplicates(["model", "strategy"]).sort_values(["model", "strategy"])
    found = {}
    for model, strategy, point in chosen[["model", "strategy", "point"]].itertuples(index=False):
        at = (points["model"] == model) & (points["strategy"] == strategy) & (points["point"] == point)
        found[str(model), str(strategy)] = ChosenPoint(str(point), points[at])
    return found


VALUES = ["model", "strategy", "seed", "value", "source", "measured"]
MEMORY = ("memory-gpu-max", "memory-cpu-max")
ENERGY = ("energy", "energy-gpu", "energy-cpu")


def _of_points(_: Numbers) -> pd.DataFrame:
    raise LookupError("a number of operating points, which the tidy table does not have")


MACS = Measure("macs", "Mean MACs of an image", "MMAC", _of_points, per_exit=False)
BALANCE = Measure("balance", "Distance from the best", "of 1", _of_points, per_exit=False)
FEWER = "it lacks exits that others have, so it has no mean over them"


@dataclass(frozen=True, eq=False)
class GoalValues:
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


def values(facts: Facts, wish: Preference, data: str, allowed: Sequence[Candidate]) -> GoalValues:
    """What `wish.goal` ranks the allowed candidates by."""
    points = only(facts.points[facts.points["data"] == data], allowed)
    match wish.goal:
        case "accuracy":
            if wish.max_macs is None:
                return _accuracy(facts, data, allowed)
            note = "Each network is used where it is most accurate within the MACs allowed."
            chosen = most_accurate_within(points, wish.max_macs)
            return _chosen(MEASURES["accuracy-test"], chosen, allowed, note)
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


def _observed(facts: Facts, data: str, names: Sequence[str], allowed: Sequence[Candidate]) -> GoalValues:
    """Overall observations of the first of these measures that there is."""
    for name in names:
        rows = facts.observed(name)
        rows = only(rows[rows["data"] == data], allowed)
        if len(rows):
            have = set(pairs(rows))
            out = {c: "there is no reading of it" for c in allowed if c not in have}
            return GoalValues(MEASURES[name], rows[VALUES], {}, out)
    return GoalValues(MEASURES[names[0]], pd.DataFrame(columns=VALUES), {}, {})


def _accuracy(facts: Facts, data: str, allowed: Sequence[Candidate]) -> GoalValues:
    found = _observed(facts, data, ("accuracy-test",), allowed)
    note = "Accuracy is the mean over exits; with --max-macs it is that of the best place to leave."
    return GoalValues(found.measure, found.frame, {}, dict.fromkeys(found.ruled_out, FEWER), (note,))


def _latency(points: pd.DataFrame, wish: Preference, allowed: Sequence[Candidate]) -> GoalValues:
    target = wish.min_accuracy if wish.min_accuracy is not None else default_target(points)
    if target is None:
        return GoalValues(MACS, pd.DataFrame(columns=VALUES), {}, {})
    asked = "as asked" if wish.min_accuracy is not None else "a point less than the best final exit"
    note = (
        f"Each network leaves where it is cheapest with {100 * target:.1f} % ({asked}) on calibration "
        "data; offramp calibrate chooses with more care."
    )
    found = _chosen(MACS, cheapest(points, target, wish.max_macs), allowed, note)
    out = {}
    for candidate in found.ruled_out:
        best = best_accuracy(only(points, [candidate]), wish.max_macs)
        reach = "nothing within these MACs" if best is None else f"{100 * best:.1f} % at most"
        out[candidate] = f"it reaches {reach}, of {100 * target:.1f} %"
    return GoalValues(MACS, found.frame, found.use, out, found.notes, counted=True, target=target)


def _chosen(
    measure: Measure, chosen: Mapping[Candidate, ChosenPoint], allowed: Sequence[Candidate], note: str
) -> GoalValues:
    column = "macs" if measure is MACS else "accuracy"
    frames = [choice.rows.assign(value=choice.rows[column], measured=True) for choice in chosen.values()]
    rows = pd.concat(frames)[VALUES] if frames else pd.DataFrame(columns=VALUES)
    use = {c: (choice.use, float(choice.rows["accuracy"].mean())) for c, choice in chosen.items()}
    out = {c: "nowhere does it meet what is asked" for c in allowed if c not in chosen}
    return GoalValues(measure, rows, use, out, (note,))


def _balanced(facts: Facts, wish: Preference, data: str, allowed: Sequence[Candidate]) -> GoalValues:
    """The mean, seed by seed, of how far a candidate is from the best (0) on the way to the worst (1) in
    accuracy, compute and training time, and in memory and energy where they were measured. Candidates
    that one of these rules out are out."""
    latency = Preference("latency", wish.min_accuracy, wish.max_macs)
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
        return GoalValues(BALANCE, pd.DataFrame(columns=VALUES), {}, out)
    both = pd.concat(far).groupby(["model", "strategy", "seed"], sort=True)["far"]
    frame = both.agg(["mean", "count"]).reset_index().rename(columns={"mean": "value"})
    frame = frame[frame["count"] == len(far)].assign(source="", measured=True)
    titles = ", ".join(part.measure.title for part in parts.values())
    inference = parts["inference"].notes if "inference" in parts else ()
    notes = (f"The mean over: {titles}.", *inference)
    return GoalValues(BALANCE, frame[VALUES], {}, out, notes)


def _distances(part: GoalValues, left: Sequence[Candidate], seeds: Sequence[int]) -> pd.DataFrame:
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
