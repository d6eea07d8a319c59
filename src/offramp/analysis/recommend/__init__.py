"""Candidates from the best to the worst, tested, and why others are out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from offramp.analysis.goals import GOALS, Goal
from offramp.analysis.measures import MEASURES, PERCENT, Measure
from offramp.analysis.recommend.goals import (
    DEARER,
    EARLY,
    Candidate,
    ComputeNeeded,
    Exclusion,
    ExclusionKind,
    Facts,
    GoalValues,
    PlainFacts,
    Preference,
    only,
    pairs,
    reach,
    ruled_out,
    values,
)
from offramp.analysis.recommend.pareto import Beaten, Offer, beaten
from offramp.analysis.stats import Columns, Sample, Untested, analyze_sample, sample
from offramp.analysis.stats.pairwise import (
    ALPHA,
    FEWEST,
    Estimate,
    Pair,
    UntestedPair,
    none_differ,
    paired_estimates,
    unbeaten,
)
from offramp.analysis.stats.sequential import InterimAnalyses
from offramp.analysis.stats.text import in_seeds, p_text, rounded
from offramp.units import first_few, macs

__all__ = [
    "GOALS",
    "Advice",
    "Facts",
    "Goal",
    "Preference",
    "Ranked",
    "RuledOut",
    "recommend",
    "sure",
]

FULL = replace(MEASURES["accuracy-test"], title="Test accuracy at full compute")
BEATS = (
    "One beats another if it trains for no more MACs, can answer for as few, is significantly more "
    "accurate at some number of MACs and less at none. Who is not beaten is not shown to be good."
)
NEAR = 0.001  # of a target: nobody means one of them and not the other
CLOSE = (0.01, 0.2)  # p that such a step may carry over ALPHA
SMALL = 0.005  # a difference in accuracy that is worth finding
NO_FIRST = (
    "Each strategy is worse than another in the seeds that both have; train all with the same seeds."
)


@dataclass(frozen=True)
class Ranked:
    """A strategy on a network, or several that are identical by construction."""

    name: str
    # mean, sd: over seeds, of the advice's measure
    mean: float
    sd: float | None
    seeds: int
    p: float | None  # of the difference from the first, adjusted; None where it was not tested
    behind: bool | None  # whether it is told apart from the first one; None if untested
    # on test, at the compute that the first one needs; of what nothing beats, at `low`. None where
    # nothing depends on compute
    accuracy: float | None = None
    # low, high: 95 % of the MACs that a target takes; high None where the target may be out of reach. Of
    # what nothing beats: the fewest MACs of an image, and the most
    low: float | None = None
    high: float | None = None
    training: float | None = None  # MACs, where they are a part of the question


@dataclass(frozen=True)
class RuledOut:
    """Who is out, and why: a clause, and what kind of reason that is."""

    name: str
    why: str
    kind: ExclusionKind = "other"


@dataclass(frozen=True)
class Advice:
    """A ranking for one data set: the best of those that no other is shown to be better than, then the
    others by their means. For the goal `pareto`, all that nothing is shown to beat."""

    goal: Goal
    data: str
    measure: Measure  # what is ranked by; values are in its stored unit
    ranking: tuple[Ranked, ...]
    ruled_out: tuple[RuledOut, ...]
    untested: str | None  # why nothing was tested, or None
    notes: tuple[str, ...]  # whole sentences
    # the test accuracy (0 to 1) that MACs are counted for; None where there is none
    target: float | None = None
    at: float | None = None  # the MACs at which candidates were tested
    # the smallest difference from the first one that would have been found with probability POWER, of
    # those that were not
    detectable: float | None = None
    withheld: str | None = None  # why there is no recommendation, a sentence; None where there is one
    even: bool = False  # whether every pair was tested, and none was found to differ
    estimated: bool = False  # whether `untested` is because values are estimates
    none_left: bool = False  # whether every strategy is ruled out
    # who is behind the first one, or is not, by the target that was taken: for one NEAR it the verdict
    # is the other
    hanging: tuple[str, ...] = ()

    @property
    def first(self) -> tuple[Ranked, ...]:
        """The best one, and all that were tested against it without a significant difference."""
        return tuple(r for i, r in enumerate(self.ranking) if i == 0 or r.behind is False)


def recommend(facts: Facts, wish: Preference) -> list[Advice]:
    """Advice for each data set, sorted by name. All pairs are tested over seeds, p adjusted after Holm
    within a data set and goal."""
    names = facts.numbers.trials["data"].unique().tolist()
    return [_near_by(facts, wish, _advise(facts, wish, str(data))) for data in sorted(names)]


def _near_by(facts: Facts, wish: Preference, advice: Advice) -> Advice:
    """Advice with a note on each candidate whose verdict is another for a target next to this one."""
    low, high = CLOSE
    close = {r.name: r for r in advice.ranking[1:] if r.p is not None and low < r.p < high}
    if advice.target is None or not close or advice.withheld is not None:
        return advice
    targets = [round(advice.target + step, 6) for step in (-NEAR, NEAR)]
    others = [
        _advise(facts, replace(wish, min_accuracy=target), advice.data)
        for target in targets
        if 0 < target < 1
    ]
    hanging = {}
    for name, row in close.items():
        p = [row.p, *(r.p for each in others for r in each.ranking[1:] if r.name == name)]
        tested = [value for value in p if value is not None]
        if (min(tested) < ALPHA) is not (max(tested) < ALPHA):
            span = f"{rounded(min(tested))} to {rounded(max(tested))} within {100 * NEAR:g} points of it"
            hanging[name] = f"Whether {name} is behind hangs on the target: p is {span}."
    notes = (*advice.notes, *hanging.values())
    return replace(advice, notes=notes, hanging=tuple(hanging))


def _advise(facts: Facts, wish: Preference, data: str) -> Advice:
    trials = facts.numbers.trials
    everyone = sorted({*pairs(trials[trials["data"] == data]), *_controls(facts, wish, data)})
    several = len({model for model, _ in everyone}) > 1
    names = {c: f"{c[1]} on {c[0]}" if several else c[1] for c in everyone}
    out = _excluded(facts, wish, data, everyone)
    if wish.goal == "pareto":
        return _unbeaten(facts, wish, data, names, out)
    goal_values = values(facts, wish, data, {c: n for c, n in names.items() if c not in out})
    out |= {c: why for c, why in goal_values.ruled_out.items() if c not in out}
    out |= dict.fromkeys(goal_values.reach.keys() - out.keys() - set(pairs(goal_values.frame)), DEARER)
    frame = only(goal_values.frame, [c for c in everyone if c not in out])
    none_left = len(out) == len(everyone)
    untested = f"there are no values of {goal_values.measure.name}"
    notes = goal_values.notes
    if wish.frozen_backbone and wish.goal not in ("accuracy", "latency"):
        notes += ("Costs include training the backbone, which a given one saves.",)
    ruled = _ruled(names, out)
    advice = Advice(
        goal=wish.goal,
        data=data,
        measure=goal_values.measure,
        ranking=(),
        ruled_out=ruled,
        untested="every strategy is ruled out" if none_left else untested,
        notes=notes,
        target=goal_values.target,
        at=goal_values.at,
        none_left=none_left,
    )
    looks = facts.looked(data, everyone)
    return _ranked(advice, goal_values, frame, names, looks) if len(frame) else advice


def _ruled(names: Mapping[Candidate, str], out: Mapping[Candidate, Exclusion]) -> tuple[RuledOut, ...]:
    return tuple(RuledOut(names[c], out[c].text, out[c].kind) for c in sorted(out))


def _unbeaten(
    facts: Facts,
    wish: Preference,
    data: str,
    names: Mapping[Candidate, str],
    out: Mapping[Candidate, Exclusion],
) -> Advice:
    """All that nothing is shown to beat, the most accurate at full compute first."""
    left = [c for c in names if c not in out]
    counted = only(values(facts, wish, data, {c: names[c] for c in left}).frame, left)
    training = counted.groupby(["model", "strategy"])["value"].mean().to_dict()
    training |= {c: plain.training for c, plain in _controls(facts, wish, data).items()}
    alike: dict[object, list[Candidate]] = {}
    answers = facts.of(data, left)
    for c, by_seed in answers.items():
        alike.setdefault(tuple((s, a.source or c) for s, a in by_seed.items()), []).append(c)
    offers = {
        " = ".join(names[c] for c in same): Offer(
            answers[same[0]], min((training[c] for c in same if c in training), default=None)
        )
        for same in alike.values()
    }
    seeds = {name: len(offer.seeds) for name, offer in offers.items()}
    few = _too_few(seeds) if len(seeds) > 1 else None
    behind = {} if few else beaten(offers, facts.looked(data, left))
    rows = [
        Ranked(
            name,
            mean=offer.accuracy(offer.dearest),
            sd=None,
            seeds=len(offer.seeds),
            p=None,
            behind=None,
            accuracy=offer.accuracy(offer.cheapest),
            low=offer.cheapest,
            high=offer.dearest,
            training=offer.training,
        )
        for name, offer in offers.items()
        if name not in behind
    ]
    lost = (RuledOut(name, _why_beaten(b), "beaten") for name, b in behind.items())
    return Advice(
        goal=wish.goal,
        data=data,
        measure=FULL,
        ranking=tuple(sorted(rows, key=lambda row: (-row.mean, row.name))),
        ruled_out=(*_ruled(names, out), *lost),
        untested=None if rows else "no answers on test images are known",
        notes=(BEATS,),
        withheld=few and f"{few}; train at least {FEWEST}.",
        even=not few and not behind,
        none_left=not left,
    )


def _why_beaten(lost: Beaten) -> str:
    low, high = macs(min(lost.macs)), macs(max(lost.macs))
    at = f"at {low}" if low == high else f"from {low} to {high}"
    return f"{lost.by} costs no more and is more accurate {at} MACs, p {p_text(lost.p)}"


def _controls(facts: Facts, wish: Preference, data: str) -> dict[Candidate, PlainFacts]:
    """Plain networks and cascades of them, where it is compute that candidates are compared by. A coin
    between two networks is a bar and no advice."""
    of_compute = ("latency", "pareto", *(["accuracy"] if wish.max_macs is not None else []))
    if wish.goal not in of_compute:
        return {}
    of_data = {(m, s): plain for (m, where, s), plain in facts.controls.items() if where == data}
    return {candidate: plain for candidate, plain in of_data.items() if plain.kind != "mixture"}


def _excluded(
    facts: Facts, wish: Preference, data: str, everyone: Sequence[Candidate]
) -> dict[Candidate, Exclusion]:
    """Who cannot meet what was asked for, and why."""
    out: dict[Candidate, Exclusion] = {}
    controls = _controls(facts, wish, data)
    answers = facts.of(data, everyone)
    final = facts.numbers.final[facts.numbers.final["data"] == data]
    exits = final.groupby(["model", "strategy"])["exit"].nunique().to_dict()
    for candidate in everyone:
        if exits.get(candidate, 0) < 2 <= max(exits.values()) and candidate not in controls:
            out[candidate] = EARLY
        elif wish.frozen_backbone and candidate[1] not in facts.heads_only:
            out[candidate] = Exclusion("it trains the backbone's weights")
        elif (wish.min_accuracy, wish.max_macs) != (None, None) and candidate in answers:
            target = 0.0 if wish.min_accuracy is None else wish.min_accuracy
            why = ruled_out(reach(list(answers[candidate].values()), target, wish.max_macs), target)
            out |= {} if why is None else {candidate: why}
    return out


def _ranked(
    advice: Advice,
    goal_values: GoalValues,
    frame: pd.DataFrame,
    names: Mapping[Candidate, str],
    looks: InterimAnalyses | None,
) -> Advice:
    """Advice with the ranking, why nothing in it was tested, and what could have been shown."""
    labeled = frame.assign(name=[names[c] for c in pairs(frame)])
    columns = Columns("value", "name", "seed", "source", "measured")
    read = sample(labeled, columns, goal_values.images)
    needed = {names[c]: r for c, r in goal_values.reach.items()}
    higher = goal_values.measure.better == "higher"

    def place(mean: float, label: str) -> tuple[float, float, str]:
        """Where a group stands: by what it needs, else by its values."""
        need = needed.get(label.split(" = ")[0])
        if need is not None and need.macs is not None:
            return need.macs, -mean, label
        return (-mean if higher else mean), 0.0, label

    groups = sorted(read.groups, key=lambda g: place(g.mean, g.label))
    analysis = analyze_sample(read, ALPHA, both=False, looks=looks)
    tested = {frozenset((p.a, p.b)): p for p in analysis.pairs}
    # What is ranked by MACs is tested by accuracy.
    best = unbeaten([g.label for g in groups], analysis.pairs, higher or bool(needed))
    # A stable sort: behind the first one all keep their places, even where its own mean is not the best.
    groups.sort(key=lambda g: g.label not in best[:1])
    # Who has no place may only seem to need more: that is a comparison too.
    rivals = len(groups) > 1 or any(o.kind in ("perhaps below", "dearer") for o in advice.ruled_out)
    few = _few(goal_values, read) if rivals else None
    if groups and not best:  # a circle: each is behind another in the seeds that the two share
        few = few or NO_FIRST
    tested = {} if few else tested
    untested, estimated = None, False
    if isinstance(analysis.believed, Untested) and len(groups) > 1:
        untested, estimated = in_seeds(analysis.believed.why), analysis.believed.estimated
    rows = []
    for group in groups:
        pair = tested.get(frozenset((groups[0].label, group.label)))
        p, behind = (pair.p, pair.p < ALPHA) if isinstance(pair, Pair) else (None, None)
        sd = float(group.array.std(ddof=1)) if len(group.values) > 1 else None
        row = Ranked(group.label, group.mean, sd, seeds=len(group.values), p=p, behind=behind)
        need = needed.get(group.names[0])
        rows.append(row if need is None else _needs(row, need))
    first = [tested.get(frozenset((groups[0].label, g.label))) for g in groups[1:]]
    why = dict.fromkeys(in_seeds(p.why) for p in first if isinstance(p, UntestedPair))
    if untested is None and why and not any(isinstance(p, Pair) for p in first):
        untested = "; ".join(why)
    detectable = [p.detectable for p in first if isinstance(p, Pair) and p.p >= ALPHA and p.detectable]
    return replace(
        advice,
        ranking=tuple(rows),
        untested=untested,
        detectable=max(detectable, default=None),
        withheld=few,
        even=bool(tested) and none_differ(analysis.pairs),
        estimated=estimated,
    )


def _needs(row: Ranked, need: ComputeNeeded) -> Ranked:
    """A row of a ranking by MACs."""
    mean = row.mean if need.macs is None else need.macs
    return replace(row, mean=mean, sd=None, accuracy=row.mean, low=need.low, high=need.high)


def _few(goal_values: GoalValues, read: Sample) -> str | None:
    """Why there is no recommendation: too few seeds to tell how much they vary."""
    text = _too_few({group.label: len(group.values) for group in read.groups})
    if text is None:
        return None
    points = goal_values.measure.unit == PERCENT or goal_values.target is not None
    spread = _spread(read)
    if spread is None or not points:
        return f"{text}; train at least {FEWEST}."
    needed = spread.blocks_for(SMALL, len(read.groups) * (len(read.groups) - 1) // 2)
    if needed is None:
        limit = "no number of seeds shows a difference of half a point on this test split"
        return f"{text}; train at least {FEWEST} ({limit})."
    return f"{text}; to show a difference of half a point takes about {needed}, as these vary."


def _too_few(seeds: Mapping[str, int]) -> str | None:
    """That some have too few seeds to tell how much they vary, and who, where others have enough."""
    least = min(seeds.values())
    if least >= FEWEST:
        return None
    few = [name for name, count in seeds.items() if count < FEWEST]
    who = f" of {', '.join(few)}" if len(few) < len(seeds) else ""
    have = f"One seed{who} is" if least == 1 else f"{least} seeds{who} are"
    return f"{have} too few for a recommendation"


def _spread(read: Sample) -> Estimate | None:
    """How the differences of two groups vary, in the middle over all pairs; None of one seed."""
    each = paired_estimates(read.groups).values()
    if not each:
        return None
    between, shared = (
        float(np.median([getattr(e, key) for e in each])) for key in ("between", "shared")
    )
    return Estimate(0.0, 2, between, shared)


def sure(advice: Advice) -> str:
    """How sure the first place is: a clause."""
    if advice.withheld is not None:
        return advice.withheld[:1].lower() + advice.withheld[1:].rstrip(".")
    if advice.untested is not None:
        return "estimated, not tested" if advice.estimated else f"not tested: {advice.untested}"
    best, *others = advice.ranking
    if advice.goal == "pareto":
        return f"nothing is shown to beat {'any of these' if others else 'it'}, {best.seeds} seeds"
    if not others:
        return (
            "no other strategy is shown to qualify"
            if advice.ruled_out
            else "there is no other to compare it with; train one"
        )
    ties, behind = advice.first[1:], [r for r in others if r.behind]
    seeds = f"{best.seeds} seeds"
    unknown = [r.name for r in others if r.behind is None]
    rest = f"; not tested against {', '.join(first_few(unknown))}" if unknown else ""
    if not ties:
        p = max(r.p for r in behind if r.p is not None)
        than = ", ".join(first_few([r.name for r in behind])) if unknown else "every other"
        return f"better than {than}, p at most {rounded(p)}, {seeds}{rest}"
    if len(ties) == len(others):
        return f"no significant difference from any other with {seeds}"
    alike = ", ".join(first_few([r.name for r in ties]))
    return f"no significant difference from {alike} with {seeds}{rest}"
