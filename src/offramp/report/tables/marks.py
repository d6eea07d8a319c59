"""Which values of a column are the best, and which are not significantly different from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from offramp.analysis.measures import MEASURES
from offramp.analysis.stats import Analysis, Untested
from offramp.analysis.stats.analyze import OverBlocks
from offramp.analysis.stats.pairwise import Pair, Pairs
from offramp.report.runs import Runs
from offramp.report.tables.common import at

ALPHA = 0.05


@dataclass(frozen=True)
class Marks:
    """Names of groups. best: with the best mean, and what is identical to them by construction.
    alike: tested against the best, and not found to differ.  untested: not tested against the best;
    they stay unmarked."""

    best: frozenset[str] = frozenset()
    alike: frozenset[str] = frozenset()
    untested: frozenset[str] = frozenset()


def marks(analysis: Analysis, better: Literal["higher", "lower"]) -> Marks:
    """By the analysis to believe: paired differences over blocks, or Tukey's where there are none."""
    if not analysis.means:
        return Marks()
    sign = 1 if better == "higher" else -1
    top = max(sign * m.mean for m in analysis.means)
    best = {m.group for m in analysis.means if sign * m.mean == top}
    rest = {m.group for m in analysis.means} - best
    tested = {frozenset((p.a, p.b)): p for p in default_pairs(analysis) if isinstance(p, Pair)}
    alike, untested = set(), set()
    for group in rest:
        found = [tested[key] for b in best if (key := frozenset((group, b))) in tested]
        if len(found) < len(best):
            untested.add(group)
        elif all(p.p >= ALPHA for p in found):
            alike.add(group)
    return Marks(_names(best), _names(alike), _names(untested))


def mark_exits(
    runs: Runs,
) -> tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]], list[tuple[str, str]]]:
    """Best and alike cells of columns `exit_K`, test accuracy, rows by strategy; and notes (place and
    words) on what could not be tested."""
    best: set[tuple[str, str]] = set()
    alike: set[tuple[str, str]] = set()
    notes = []
    for exit in runs.exits:
        analysis = runs.analysis(MEASURES["accuracy-test"], exit)
        if analysis is None:
            continue
        where, marked = at(exit, runs.exits), marks(analysis, "higher")
        best |= {(name, f"exit_{exit}") for name in marked.best}
        alike |= {(name, f"exit_{exit}") for name in marked.alike}
        if isinstance(analysis.over_blocks, Untested):
            why = analysis.over_blocks.why
            notes.append((where, f"no test, so the best mean alone is marked: {why}"))
        elif marked.untested:
            notes.append((where, f"not tested against the best: {', '.join(sorted(marked.untested))}"))
    return frozenset(best), frozenset(alike), notes


def default_pairs(analysis: Analysis) -> Pairs:
    """All pairs by the analysis to believe; none where it could not be made."""
    if analysis.default == "over blocks":
        way = analysis.over_blocks
        return way.pairs if isinstance(way, OverBlocks) else ()
    return getattr(analysis.one_way, "pairs", ())


def _names(labels: set[str]) -> frozenset[str]:
    """Members of groups that are identical by construction, one by one."""
    return frozenset(name for label in labels for name in label.split(" = "))
