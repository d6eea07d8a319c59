"""Candidates from the best to the worst, tested, and why others are out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from offramp.analysis.measures import Measure
from offramp.analysis.recommend.goals import (
    Candidate,
    Facts,
    GoalValues,
    Preference,
    best_accuracy,
    only,
    pairs,
    values,
)
from offramp.analysis.stats import Columns, Untested, analyze_sample, sample
from offramp.analysis.stats.analyze import OverBlocks
from offramp.analysis.stats.pairwise import Pair, UntestedPair
from offramp.paper.guidelines import Goal

ALPHA = 0.05


@dataclass(frozen=True)
class Ranked:
    """A strategy on a network, or several that are identical by construction.

    mean, sd: over seeds, of the advice's measure.  p: of the difference from the first, adjusted; None
    where it was not tested.  behind: whether it is told apart from the first one; None if untested.
    use, accuracy: how to use the network so, such as `exit 2`, and what its test accuracy then is; empty
    and None where the measure is not of one way to use it.
    """

    name: str
    mean: float
    sd: float | None
    seeds: int
    p: float | None
    behind: bool | None
    use: str = ""
    accuracy: float | None = None


@dataclass(frozen=True)
class RuledOut:
    """Who is out, and why: a clause."""

    name: str
    why: str


@dataclass(frozen=True)
class Advice:
    """A ranking for one data set, the best first.

    measure: what is ranked by; values are in its stored unit.  untested: why nothing was tested, or
    None.  notes: whole sentences.  target: the accuracy (0 to 1, on calibration data) that places to
    leave were chosen for; None where there is none.
    """

    goal: Goal
    data: str
    measure: Measure
    ranking: tuple[Ranked, ...]
    ruled_out: tuple[RuledOut, ...]
    untested: str | None
    notes: tuple[str, ...]
    target: float | None = None

    @property
    def first(self) -> tuple[Ranked, ...]:
        """The best one, and all that were tested against it without a significant difference."""
        return tuple(r for i, r in enumerate(self.ranking) if i == 0 or r.behind is False)


def recommend(facts: Facts, wish: Preference) -> list[Advice]:
    """Advice for each data set, sorted by name. All pairs are tested over seeds, p adjusted after Holm
    within a data set and goal."""
    names = facts.numbers.trials["data"].unique().tolist()
    return [_advise(facts, wish, str(data)) for data in sorted(names)]


def _advise(facts: Facts, wish: Preference, data: str) -> Advice:
    trials = facts.numbers.trials
    everyone = sorted(set(pairs(trials[trials["data"] == data])))
    out = _excluded(facts, wish, data, everyone)
    found = values(facts, wish, data, [c for c in everyone if c not in out])
    out |= {c: why for c, why in found.ruled_out.items() if c not in out}
    several = len({model for model, _ in everyone}) > 1
    names = {c: f"{c[1]} on {c[0]}" if several else c[1] for c in everyone}
    frame = only(found.frame, [c for c in everyone if c not in out])
    ranking, untested = _rank(found, frame, names)
    if not ranking and len(out) == len(everyone):
        untested = "every strategy is ruled out"
    notes = found.notes
    if wish.frozen_backbone and wish.goal not in ("accuracy", "latency"):
        notes += ("Costs include training the backbone, which a given one saves.",)
    ruled = tuple(RuledOut(names[c], why) for c, why in sorted(out.items()))
    return Advice(wish.goal, data, found.measure, ranking, ruled, untested, notes, found.target)


def _excluded(
    facts: Facts, wish: Preference, data: str, everyone: Sequence[Candidate]
) -> dict[Candidate, str]:
    """Who cannot meet what was asked for, and why."""
    out: dict[Candidate, str] = {}
    points = facts.points[facts.points["data"] == data]
    known = facts.numbers.final[facts.numbers.final["data"] == data]
    exits = known.groupby(["model", "strategy"])["exit"].nunique().to_dict()
    for candidate in everyone:
        if exits.get(candidate, 0) < 2 <= max(exits.values()):
            out[candidate] = "it has no early exits"
        elif wish.frozen_backbone and candidate[1] not in facts.heads_only:
            out[candidate] = "it trains the backbone's weights"
        elif wish.min_accuracy is not None or wish.max_macs is not None:
            best = best_accuracy(only(points, [candidate]), wish.max_macs)
            budget = "" if wish.max_macs is None else " within these MACs"
            if best is None:
                out[candidate] = "it cannot answer within these MACs"
            elif wish.min_accuracy is not None and best < wish.min_accuracy:
                out[candidate] = f"it reaches {100 * best:.1f} % at most{budget}"
    return out


def _rank(
    found: GoalValues, frame: pd.DataFrame, names: Mapping[Candidate, str]
) -> tuple[tuple[Ranked, ...], str | None]:
    """The ranking, and why nothing in it was tested."""
    if frame.empty:
        return (), f"there are no values of {found.measure.name}"
    labeled = frame.assign(name=[names[c] for c in pairs(frame)])
    read = sample(labeled, Columns("value", "name", "seed", "source", "measured"))
    sign = -1 if found.measure.better == "higher" else 1
    use = {names[c]: how for c, how in found.use.items()}
    plain: tuple[str, None] = ("", None)
    groups = sorted(
        read.groups, key=lambda g: (sign * g.mean, -(use.get(g.names[0], plain)[1] or 0.0), g.label)
    )
    analysis = analyze_sample(read, ALPHA).over_blocks
    tested: dict[frozenset[str], Pair | UntestedPair] = {}
    untested = None
    if isinstance(analysis, OverBlocks):
        tested = {frozenset((p.a, p.b)): p for p in analysis.pairs}
    elif isinstance(analysis, Untested) and len(groups) > 1:
        untested = analysis.why.replace("block", "seed")
    rows = []
    for group in groups:
        pair = tested.get(frozenset((groups[0].label, group.label)))
        p, behind = _against_first(pair, found.counted)
        sd = float(group.array.std(ddof=1)) if len(group.values) > 1 else None
        how, accuracy = use.get(group.names[0], plain)
        n = len(group.values)
        rows.append(Ranked(group.label, group.mean, sd, n, p, behind, how, accuracy))
    return tuple(rows), untested


def _against_first(pair: Pair | UntestedPair | None, counted: bool) -> tuple[float | None, bool | None]:
    """p, and whether a candidate is told apart from the first one."""
    if isinstance(pair, Pair):
        return pair.p, pair.p < ALPHA
    if isinstance(pair, UntestedPair) and counted and pair.difference is not None:
        return None, pair.difference != 0  # exact counts, different by the same in every seed
    return None, None


def sure(advice: Advice) -> str:
    """How sure the first place is: a clause."""
    if advice.untested is not None:
        estimated = advice.untested.startswith("estimated")
        return "estimated, not tested" if estimated else f"not tested: {advice.untested}"
    best, *others = advice.ranking
    if not others:
        return "there is nothing to compare it with"
    ties = advice.first[1:]
    seeds = f"{best.seeds} seeds"
    unknown = [r.name for r in others if r.behind is None]
    rest = f"; not tested against {', '.join(unknown)}, always as far behind" if unknown else ""
    if not ties:
        ps = [r.p for r in others if r.p is not None]
        return f"better than every other{f', p at most {max(ps):.2g}, {seeds}' if ps else ''}{rest}"
    if len(ties) == len(others):
        return f"no significant difference from any other with {seeds}"
    return f"no significant difference from {', '.join(r.name for r in ties)} with {seeds}{rest}"
