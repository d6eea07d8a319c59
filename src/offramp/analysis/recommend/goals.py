"""The numbers that a goal ranks by, of every candidate one a seed: costs, and accuracy for compute."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from offramp.analysis.goals import Goal
from offramp.analysis.measures import MEASURES, MMAC, Measure, Numbers, observations
from offramp.analysis.stats.pairwise import ALPHA, FEWEST, estimate
from offramp.analysis.stats.sample import ValuesOnImages
from offramp.analysis.stats.sequential import InterimAnalyses
from offramp.analysis.tradeoff import AnyAnswers, Floats
from offramp.units import percent

LESS = 0.01  # accuracy to give up when no target is named
ENDS = 33  # points of a mean curve at which its interval is worked out

Candidate = tuple[str, str]  # model, strategy
TrialKey = tuple[str, str, str, int]  # model, data, strategy, seed


@dataclass(frozen=True)
class PlainFacts:
    """What is known of a candidate without early exits. training: MACs that it took."""

    kind: Literal["network", "mixture", "cascade"]
    training: float


@dataclass(frozen=True, eq=False)
class Facts:
    """What advice rests on."""

    numbers: Numbers
    answers: Mapping[TrialKey, AnyAnswers]  # of every trial on its test images; may be empty
    heads_only: frozenset[str] = frozenset()  # strategies that leave a given backbone as it is
    # after which seeds were added, by model and data
    looks: Mapping[tuple[str, str], InterimAnalyses] = field(default_factory=dict)
    # candidates without early exits, by model, data and name: plain networks, a mixture of them, and
    # cascades of two
    controls: Mapping[tuple[str, str, str], PlainFacts] = field(default_factory=dict)
    _by_measure: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)

    def observed(self, measure: str) -> pd.DataFrame:
        """Overall observations of a measure (columns measures.OBSERVATION), worked out once."""
        if measure not in self._by_measure:
            rows = observations(self.numbers, MEASURES[measure])
            self._by_measure[measure] = rows[rows["exit"].isna()]
        return self._by_measure[measure]

    def looked(self, data: str, candidates: Collection[Candidate]) -> InterimAnalyses | None:
        """The looks that pairs of candidates on a data set pay for; None where nobody looked. Of several
        rules the longest: shares of alpha add up to one whatever ends the looks, so one rule is right
        for seeds of another too, and for those that were fixed beforehand."""
        rules = [self.looks[model, data] for model, _ in candidates if (model, data) in self.looks]
        return max(rules, key=lambda rule: (len(rule.order), rule.order, rule.first), default=None)

    def of(self, data: str, candidates: Collection[Candidate]) -> dict[Candidate, dict[int, AnyAnswers]]:
        """Answers on a data set, by candidate and seed."""
        by_candidate: dict[Candidate, dict[int, AnyAnswers]] = {}
        for (model, where, strategy, seed), answers in sorted(self.answers.items()):
            if where == data and (model, strategy) in candidates:
                by_candidate.setdefault((model, strategy), {})[seed] = answers
        return by_candidate


@dataclass(frozen=True)
class Preference:
    """What is asked for. min_accuracy: 0 to 1.  max_macs: of an image, on average."""

    goal: Goal
    min_accuracy: float | None = None
    max_macs: float | None = None
    frozen_backbone: bool = False


# Accuracy for compute: curves of all thresholds, averaged over seeds


@dataclass(frozen=True)
class ComputeNeeded:
    """What a candidate needs for an accuracy."""

    macs: float | None  # where its mean curve over seeds first has it; None where it never does
    # low, high: 95 % over seeds, and over images where all seeds answered the same ones; high None: it
    # may never; both None of fewer than FEWEST seeds
    low: float | None
    high: float | None
    # the highest accuracy of its curve, and the same interval
    best: tuple[float, float | None, float | None]


def reach(
    seeds: Sequence[AnyAnswers], accuracy: float, max_macs: float | None = None
) -> ComputeNeeded | None:
    """What a candidate needs; None where it cannot answer within `max_macs`. seeds: its answers."""
    spent, mean = _mean_curve(seeds, max_macs)
    if not len(spent):
        return None
    top = int(mean.argmax())
    best, same = float(mean[top]), _same_images(seeds)
    if len(seeds) < FEWEST:
        return ComputeNeeded(_first(spent, mean, accuracy), None, None, (best, None, None))
    # Intervals are smooth in compute, and each costs a pass over all images.
    some = np.linspace(spent[0], spent[-1], ENDS)
    rows = ([a.on_images(m) if same else a.accuracy(m) for a in seeds] for m in some)
    half = np.interp(spent, some, [estimate(np.array(values)).half(ALPHA) for values in rows])
    ends = (_first(spent, mean + half, accuracy), _first(spent, mean - half, accuracy))
    around = (best, float(mean[top] - half[top]), float((mean + half).max()))
    return ComputeNeeded(_first(spent, mean, accuracy), *ends, around)


def _mean_curve(seeds: Sequence[AnyAnswers], max_macs: float | None = None) -> tuple[Floats, Floats]:
    """MACs that all seeds can spend, at every threshold of each, and their mean accuracy there; none
    where `max_macs` are few."""
    # Where one seed cannot spend so little, a mean over the others would be of other networks.
    low = max(a.cheapest for a in seeds)
    high = max(a.curve[1][0] for a in seeds)
    high = high if max_macs is None else min(high, max_macs)
    every = np.unique(np.concatenate([[low, high], *(a.curve[1] for a in seeds)]))
    spent = every[(low <= every) & (every <= high)]
    return spent, np.mean([a.accuracy(spent) for a in seeds], axis=0)


def compute_for(seeds: Sequence[AnyAnswers], accuracy: float) -> float | None:
    """The MACs at which a candidate's mean curve over seeds first has an accuracy; None where it never
    does."""
    spent, mean = _mean_curve(seeds)
    return _first(spent, mean, accuracy)


def ruled_out(needed: ComputeNeeded | None, target: float) -> Exclusion | None:
    """Why a candidate does not have the target, as sure as the runs are; None where it does."""
    if needed is None:
        return WITHIN
    if needed.macs is not None:
        return None
    best, low, high = needed.best
    ends = "" if low is None or high is None else f" ({percent(low)} to {percent(high)})"
    text = f"it reaches {percent(best)} at most{ends}, of {percent(target)}"
    if high is None or high >= target:
        return Exclusion(f"not shown either way: {text}", "perhaps below")
    return Exclusion(text, "below the target")


def _first(spent: Floats, accuracy: Floats, target: float) -> float | None:
    """Where a curve first has an accuracy, on the line between two points."""
    places = np.flatnonzero(accuracy >= target)
    if not len(places):
        return None
    at = int(places[0])
    if at == 0:
        return float(spent[0])
    span = accuracy[at] - accuracy[at - 1]
    return float(spent[at - 1] + (target - accuracy[at - 1]) / span * (spent[at] - spent[at - 1]))


def _same_images(answers: Collection[AnyAnswers]) -> bool:
    """Whether all answered the same images, of which one alone says nothing of how much images vary."""
    keys = {a.images for a in answers}
    return len(keys) == 1 and "" not in keys and all(len(a.right) > 1 for a in answers)


def default_target(answers: Mapping[Candidate, Mapping[int, AnyAnswers]]) -> float | None:
    """A point less than the best mean accuracy of any candidate, at whichever compute."""
    best = [float(_mean_curve(list(seeds.values()))[1].max()) for seeds in answers.values()]
    return max(best) - LESS if best else None


def at_compute(
    by_candidate: Mapping[Candidate, Mapping[int, AnyAnswers]],
    macs: float,
    names: Mapping[Candidate, str],
) -> tuple[pd.DataFrame, ValuesOnImages | None]:
    """Test accuracy of every candidate that can answer so cheaply, a row a seed (columns VALUES), and
    image by image, by name."""
    rows: list[tuple[object, ...]] = []
    images: dict[tuple[str, str], Floats] = {}
    for (model, strategy), seeds in by_candidate.items():
        for seed, answers in seeds.items():
            if answers.cheapest <= macs:
                value = answers.on_images(macs)
                images[names[model, strategy], str(seed)] = value
                rows.append((model, strategy, seed, float(value.mean()), answers.source, True))
    same = _same_images([a for seeds in by_candidate.values() for a in seeds.values()])
    return pd.DataFrame(rows, columns=VALUES), images if same else None


VALUES = ["model", "strategy", "seed", "value", "source", "measured"]
MEMORY = ("memory-gpu-max", "memory-cpu-max")
ENERGY = ("energy", "energy-gpu", "energy-cpu")


def _of_points(_: Numbers) -> pd.DataFrame:
    raise LookupError("a number of operating points, which the tidy table does not have")


MACS = Measure("macs", "Mean MACs of an image", MMAC, _of_points, per_exit=False)
AT_MACS = replace(MEASURES["accuracy-test"], title="Test accuracy at these MACs")
ExclusionKind = Literal[
    "no early exits", "below the target", "perhaps below", "dearer", "beaten", "other"
]


@dataclass(frozen=True)
class Exclusion:
    """Why a candidate is out: a clause.  kind: what that is about, where sentences tell it apart."""

    text: str
    kind: ExclusionKind = "other"


EARLY = Exclusion("it has no early exits", "no early exits")
FEWER = Exclusion("it lacks exits that others have, so it has no mean over them")
WITHIN = Exclusion("it needs more MACs than these")
DEARER = Exclusion("it needs more MACs than the first one", "dearer")


@dataclass(frozen=True, eq=False)
class GoalValues:
    """The values that a goal ranks by."""

    measure: Measure
    frame: pd.DataFrame  # a row a candidate and seed (columns VALUES)
    ruled_out: Mapping[Candidate, Exclusion]  # who has no value, and why
    notes: tuple[str, ...] = ()  # whole sentences
    images: ValuesOnImages | None = None  # the values image by image, by name and seed
    # what each needs for `target`, where the goal is that; candidates are then ranked by it and tested
    # by `frame`, their accuracy at the compute `at`
    reach: Mapping[Candidate, ComputeNeeded] = field(default_factory=dict)
    target: float | None = None  # a test accuracy, 0 to 1
    at: float | None = None  # the MACs that the first candidate needs


def pairs(frame: pd.DataFrame) -> list[Candidate]:
    """The candidate of each row."""
    return list(zip(frame["model"].astype(str), frame["strategy"].astype(str), strict=True))


def only(frame: pd.DataFrame, candidates: Collection[Candidate]) -> pd.DataFrame:
    """The rows of these candidates."""
    return frame.loc[np.array([c in candidates for c in pairs(frame)], dtype=bool)]


def values(facts: Facts, wish: Preference, data: str, names: Mapping[Candidate, str]) -> GoalValues:
    """What `wish.goal` ranks candidates by. names: of those that are allowed."""
    match wish.goal:
        case "accuracy":
            return _accuracy(facts, wish, data, names)
        case "latency":
            return _latency(facts, wish, data, names)
        case "training-time":
            training = _training(facts, data, names)
            time = training.measure.name == "seconds-written"  # MACs that stand for it estimate it
            return training if time else replace(training, frame=training.frame.assign(measured=False))
        case "memory":
            return _observed(facts, data, MEMORY, names)
        case "energy":
            return _observed(facts, data, ENERGY, names)
        case "pareto":
            return _observed(facts, data, ("macs-written",), names)


def _observed(
    facts: Facts, data: str, measures: Sequence[str], names: Mapping[Candidate, str]
) -> GoalValues:
    """Overall observations of the first of these measures that there is."""
    for name in measures:
        rows = facts.observed(name)
        rows = only(rows[rows["data"] == data], names)
        if len(rows):
            have = set(pairs(rows))
            out = {c: Exclusion("there is no reading of it") for c in names if c not in have}
            return GoalValues(MEASURES[name], rows[VALUES], out)
    return GoalValues(MEASURES[measures[0]], pd.DataFrame(columns=VALUES), {})


def _training(facts: Facts, data: str, names: Mapping[Candidate, str]) -> GoalValues:
    """The time that training takes. Where a time is an estimate it goes by what else the machine did;
    MACs, which are counted, then stand for it."""
    time = _observed(facts, data, ("seconds-written",), names)
    counted = _observed(facts, data, ("macs-written",), names)
    if time.frame["measured"].all() or not len(counted.frame):
        return time
    note = "Not every time was measured apart; multiply-accumulates stand for it."
    return replace(counted, notes=(note,))


def _accuracy(facts: Facts, wish: Preference, data: str, names: Mapping[Candidate, str]) -> GoalValues:
    """Averaged over exits; with a limit on MACs, of the threshold that spends just these."""
    by_candidate = facts.of(data, names)
    if wish.max_macs is not None:
        frame, images = at_compute(by_candidate, wish.max_macs, names)
        out = {c: WITHIN for c in names if c not in set(pairs(frame))}
        note = (
            "Thresholds are such that an image takes these MACs on average; no label is used for that."
        )
        return GoalValues(AT_MACS, frame, out, (note,), images)
    seen = _observed(facts, data, ("accuracy-test",), names)
    note = "Accuracy is the mean over exits; --max-macs compares at equal compute."
    images = {
        (names[c], str(seed)): np.asarray(answers.right.mean(axis=1))
        for c, seeds in by_candidate.items()
        for seed, answers in seeds.items()
    }
    answered = {
        (names[c], str(seed)) for c, seed in zip(pairs(seen.frame), seen.frame["seed"], strict=True)
    }
    complete = answered <= set(images) and _same_images(
        [a for s in by_candidate.values() for a in s.values()]
    )
    out = dict.fromkeys(seen.ruled_out, FEWER)
    return GoalValues(seen.measure, seen.frame, out, (note,), images if complete else None)


def _latency(facts: Facts, wish: Preference, data: str, names: Mapping[Candidate, str]) -> GoalValues:
    """The compute that an accuracy takes. Candidates are tested where compute is equal: by the accuracy
    that each has for what the first one needs."""
    by_candidate = facts.of(data, names)
    # A point less than networks with early exits reach: a plain network that is added moves no target.
    early = {c: seeds for c, seeds in by_candidate.items() if (c[0], data, c[1]) not in facts.controls}
    target = wish.min_accuracy if wish.min_accuracy is not None else default_target(early)
    nothing = pd.DataFrame(columns=VALUES)
    if target is None:
        return GoalValues(MACS, nothing, {})
    reached: dict[Candidate, ComputeNeeded] = {}
    out = {}
    for candidate, seeds in by_candidate.items():
        needed = reach(list(seeds.values()), target, wish.max_macs)
        why = ruled_out(needed, target)
        if needed is None or why is not None:
            out[candidate] = why or WITHIN
        else:
            reached[candidate] = needed
    best = "the best" if len(early) == len(by_candidate) else "the best with early exits"
    source = "as asked" if wish.min_accuracy is not None else f"a point less than {best}"
    if not reached:
        return GoalValues(MACS, nothing, out, target=target)
    at = min(r.macs for r in reached.values() if r.macs is not None)
    frame, images = at_compute({c: by_candidate[c] for c in reached}, at, names)
    note = (
        f"MACs at which the mean curve over seeds has {percent(target)} ({source}), on test. "
        "Strategies are tested by the accuracy that each has at the compute that the first one needs."
    )
    return GoalValues(
        MACS, frame, ruled_out=out, notes=(note,), images=images, reach=reached, target=target, at=at
    )
