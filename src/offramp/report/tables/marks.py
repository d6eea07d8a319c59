"""Which values of a column are the best, and which are not significantly different from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from offramp.analysis.measures import MEASURES
from offramp.analysis.stats import Analysis, Untested
from offramp.analysis.stats.pairwise import ALPHA, POWER, Pair, least_shown, unbeaten
from offramp.analysis.stats.text import in_seeds
from offramp.report.runs import Runs
from offramp.report.tables.common import at


@dataclass(frozen=True)
class Marks:
    """Names of groups. best: with the best mean of those that no other is shown to be better than, and
    what is identical to them by construction.  alike: tested against the best, and not found to differ.
    untested: not tested against the best; they stay unmarked.  mean: of the best.  least: the smallest
    difference from the best that those alike would have shown with probability POWER."""

    best: frozenset[str] = frozenset()
    alike: frozenset[str] = frozenset()
    untested: frozenset[str] = frozenset()
    mean: float = float("nan")
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
