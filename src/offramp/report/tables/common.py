"""What several tables need: lists of measures, notes that repeat, and which values are the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from offramp.analysis.measures import MEASURES, Measure
from offramp.analysis.stats import Analysis, Untested
from offramp.analysis.stats.pairwise import ALPHA, POWER, Pair, least_shown, unbeaten
from offramp.analysis.stats.text import in_seeds
from offramp.report.evidence import Evidence
from offramp.report.runs import Runs

FEW = 4  # places that a note names before it counts the rest


def gathered(notes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """One line for each thing that is to be said, with the places that it is true of.

    Args:
        notes: Place and words. Repeated ones are merged, in the order of their first appearance.
    """
    places: dict[str, list[str]] = {}
    for place, words in notes:
        named_places = places.setdefault(words, [])
        if place not in named_places:
            named_places.append(place)
    lines = []
    for words, named_places in places.items():
        where = [place for place in named_places if place]
        named = "; ".join(where[:FEW])
        more = f" and {len(where) - FEW} more" if len(where) > FEW else ""
        lines.append(f"{named}{more}: {words}." if where else f"{words}.")
    return tuple(lines)


def at(exit: int | None, exits: Sequence[int]) -> str:
    """`overall`, `exit 2`, `final`."""
    if exit is None:
        return "overall"
    return "final" if exits and exit == exits[-1] else f"exit {exit}"


def named(*names: str) -> tuple[Measure, ...]:
    return tuple(MEASURES[name] for name in names)


SPLITS = ("train", "validation", "test")
LOSSES = named(*(f"loss-{split}" for split in SPLITS))
ACCURACIES = named(*(f"accuracy-{split}" for split in SPLITS))
QUALITY = (*LOSSES, *ACCURACIES)
EPOCHS = named(
    *("min-loss-epoch", "peak-epoch", "saturation-epoch", "overfits", "overfitting-epoch"),
    *("generalization-gap-best", "generalization-gap-last", "validation-stability"),
)
# The paper adds memory up over the runs of exits and reports peak power (5.5); the largest phase is what
# a machine must have.
COSTS = named(
    "seconds-written",
    *("memory-gpu-sum", "memory-gpu-max", "memory-cpu-sum", "memory-cpu-max"),
    *("power-gpu-peak", "power-gpu-mean", "power-cpu-peak", "power-cpu-mean", "energy"),
)
RESOURCES = named("memory-gpu-sum", "memory-cpu-sum", "power-gpu-mean", "power-cpu-mean", "energy")
WHICH = (
    "Memory, sum over phases: as the paper adds it up over the runs of exits; largest phase: what a "
    "machine must have. Power, peak: the highest of any phase, as in the paper's section 5.5; mean: "
    "weighted with time, as in its Table 7."
)


def recorded(evidence: Evidence, measures: Sequence[Measure]) -> tuple[Measure, ...]:
    """Those of which the evidence has any value."""
    return tuple(measure for measure in measures if evidence.observed(measure))


def unrecorded(evidence: Evidence, measures: Sequence[Measure]) -> tuple[str, ...]:
    """A note that names those of which there is none."""
    present = recorded(evidence, measures)
    absent = [measure.title for measure in measures if measure not in present]
    return (f"Not recorded in any trial: {'; '.join(absent)}.",) if absent else ()


@dataclass(frozen=True)
class Marks:
    """Names of groups."""

    # with the best mean of those that no other is shown to be better than, and what is identical to them
    # by construction
    best: frozenset[str] = frozenset()
    alike: frozenset[str] = frozenset()  # tested against the best, and not found to differ
    untested: frozenset[str] = frozenset()  # not tested against the best; they stay unmarked
    mean: float = float("nan")  # of the best
    # the smallest difference from the best that those alike would have shown with probability POWER
    least: float | None = None


def marks(analysis: Analysis, better: Literal["higher", "lower"]) -> Marks:
    """By the analysis to rely on."""
    if not analysis.means:
        return Marks()
    sign = 1 if better == "higher" else -1
    means = {m.group: m.mean for m in analysis.means}
    left = unbeaten(list(means), analysis.pairs, better == "higher") or list(means)
    mean = max((means[group] for group in left), key=lambda m: sign * m)
    best = {group for group in left if means[group] == mean}
    rest = means.keys() - best
    tested = {frozenset((p.a, p.b)): p for p in analysis.pairs if isinstance(p, Pair)}
    alike, untested, even = set(), set(), []
    for group in rest:
        pairs = [tested[key] for b in best if (key := frozenset((group, b))) in tested]
        if len(pairs) < len(best):
            untested.add(group)
        elif all(p.p >= ALPHA for p in pairs):
            alike.add(group)
            even += pairs
    return Marks(_names(best), _names(alike), _names(untested), mean, least_shown(even))


def mark_exits(
    runs: Runs,
    exits: Sequence[int | None],
) -> tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]], list[tuple[str, str]]]:
    """Best and alike cells of columns `exit_K` (`mean` of None), test accuracy, rows by strategy; and
    notes (place and words) on what could not be tested."""
    best: set[tuple[str, str]] = set()
    alike: set[tuple[str, str]] = set()
    notes, least_of = [], []
    for exit in exits:
        analysis = runs.analysis(MEASURES["accuracy-test"], exit)
        if analysis is None:
            continue
        where, marked = at(exit, runs.exits), marks(analysis, "higher")
        column = "mean" if exit is None else f"exit_{exit}"
        best |= {(name, column) for name in marked.best}
        alike |= {(name, column) for name in marked.alike}
        least_of += [(where, marked.least)] if marked.least is not None else []
        if isinstance(analysis.believed, Untested):
            why = in_seeds(analysis.believed.why)
            notes.append((where, f"no test, so the best mean alone is marked: {why}"))
        elif marked.untested:
            notes.append((where, f"not tested against the best: {', '.join(sorted(marked.untested))}"))
    return frozenset(best), frozenset(alike), [*notes, *power(least_of)]


def power(least_of: Sequence[tuple[str, float]]) -> list[tuple[str, str]]:
    """A note on what marks leave open. least_of: place, and the difference that would have been found
    there, a share."""
    points = ", ".join(f"{100 * least:.1f} ({where})" for where, least in least_of)
    words = (
        f"Of what does not differ significantly from the best, differences of {points} points would "
        "have been found in"
    )
    return [("", f"{words} {100 * POWER:.0f} % of such runs")] if least_of else []


def _names(labels: set[str]) -> frozenset[str]:
    """Members of groups that are identical by construction, one by one."""
    return frozenset(name for label in labels for name in label.split(" = "))
