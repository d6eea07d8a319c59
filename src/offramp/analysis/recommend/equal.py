"""Candidates compared where they spend equally much: who leads, from which compute to which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from offramp.analysis.recommend.goals import Candidate, Facts, at_compute, pairs
from offramp.analysis.stats import Columns, analyze_sample, sample
from offramp.analysis.stats.pairwise import ALPHA, Pair, Pairs, none_differ, unbeaten
from offramp.analysis.stats.text import in_seeds
from offramp.analysis.tradeoff import AnyAnswers, levels


@dataclass(frozen=True)
class ComputeLevel:
    """One amount of compute."""

    macs: float  # of an image, on average
    # test accuracy over seeds, by group (a name, or several that are identical by construction), the
    # highest first, but behind the best of those that no other beats
    means: Mapping[str, float]
    pairs: Pairs  # p and intervals are adjusted over all pairs and all levels
    why: str | None = None  # nothing was tested, and why; or None

    def beats(self, a: str, b: str) -> bool:
        """Whether `a` is significantly more accurate than `b` here."""
        differences = {
            (p.a, p.b): p.difference for p in self.pairs if isinstance(p, Pair) and p.p < ALPHA
        }
        return differences.get((a, b), 0.0) > 0 or differences.get((b, a), 0.0) < 0

    @property
    def even(self) -> bool:
        """Whether every pair was tested, and none was found to differ."""
        return self.why is None and none_differ(self.pairs)

    @property
    def untested(self) -> tuple[str, ...]:
        """Groups that were not tested against the best."""
        best, *others = self.means
        tested = {frozenset((p.a, p.b)) for p in self.pairs if isinstance(p, Pair)}
        return tuple(name for name in others if frozenset((best, name)) not in tested)

    @property
    def leading(self) -> tuple[str, ...]:
        """The best group, and those that it does not beat, the highest mean first."""
        best = next(iter(self.means))
        return tuple(name for name in self.means if not self.beats(best, name))


def equal_compute(facts: Facts, data: str, names: Mapping[Candidate, str]) -> tuple[ComputeLevel, ...]:
    """Test accuracy at amounts of compute that all candidates with early exits can spend, with these in
    use; and that of plain networks which can spend as little."""
    answers = facts.of(data, names)
    several = {c: seeds for c, seeds in answers.items() if all(len(a.macs) > 1 for a in seeds.values())}
    early = {c: seeds for c, seeds in several.items() if (c[0], data, c[1]) not in facts.controls}
    if not early:
        return ()
    spent = levels([a.macs for seeds in early.values() for a in seeds.values()])
    compared = (_level(facts, data, several, names, macs, len(spent)) for macs in spent)
    return tuple(level for level in compared if level.means)


def beside_controls(
    facts: Facts, data: str, names: Mapping[Candidate, str], controls: Mapping[Candidate, str]
) -> dict[str, ComputeLevel]:
    """Each plain network beside the candidates with early exits that can spend as little, at its
    compute; p are adjusted over all pairs and all of these levels. names: of the candidates with early
    exits; controls: of the plain networks."""
    early = facts.of(data, names)
    early = {c: seeds for c, seeds in early.items() if all(len(a.macs) > 1 for a in seeds.values())}
    plain = facts.of(data, controls)
    by_name: dict[str, ComputeLevel] = {}
    for control, seeds in plain.items():
        compared = {**early, control: seeds}
        macs, named = max(a.macs[-1] for a in seeds.values()), {**names, control: controls[control]}
        level = _level(facts, data, compared, named, macs, len(plain))
        if level.means:
            by_name[controls[control]] = level
    return by_name


def _level(
    facts: Facts,
    data: str,
    answers: Mapping[Candidate, Mapping[int, AnyAnswers]],
    names: Mapping[Candidate, str],
    macs: float,
    count: int,
) -> ComputeLevel:
    """Candidates at one of `count` amounts of compute."""
    frame, images = at_compute(answers, macs, names)
    labeled = frame.assign(name=[names[c] for c in pairs(frame)])
    read = sample(labeled, Columns("value", "name", "seed", "source", "measured"), images)
    looks = facts.looked(data, answers)
    analysis = analyze_sample(read, ALPHA / count, both=False, looks=looks)
    adjusted = tuple(
        replace(p, p=min(1.0, p.p * count)) if isinstance(p, Pair) else p for p in analysis.pairs
    )
    best = unbeaten([group.label for group in read.groups], adjusted, higher=True)[:1]
    groups = sorted(read.groups, key=lambda group: group.label not in best)
    why = getattr(analysis.believed, "why", None)
    means = {group.label: group.mean for group in groups}
    return ComputeLevel(macs, means, adjusted, why and in_seeds(why))


def crossings(levels: Sequence[ComputeLevel]) -> list[tuple[str, str]]:
    """Pairs of groups each of which beats the other somewhere, by name."""
    groups = sorted({name for level in levels for name in level.means})
    return [
        (a, b)
        for i, a in enumerate(groups)
        for b in groups[i + 1 :]
        if any(level.beats(a, b) for level in levels) and any(level.beats(b, a) for level in levels)
    ]


def stretches(levels: Sequence[ComputeLevel]) -> list[tuple[tuple[ComputeLevel, ...], tuple[str, ...]]]:
    """Neighboring levels with the same groups leading, and these in the order of their means."""
    parts = [tuple(part) for _, part in groupby(levels, key=lambda level: frozenset(level.leading))]
    return [(part, part[-1].leading) for part in parts]
