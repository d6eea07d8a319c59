"""In words: what looks at added seeds came to, and how many seeds a difference takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from offramp.terminal import TextTable
from offramp.units import counted

if TYPE_CHECKING:
    from offramp.analysis.stats.sequential import Decision
    from offramp.report.power import PairNeeds, SeedsNeeded
    from offramp.store.manifest import SeedLog

VERDICTS = ("different", "alike", "too few images", "open")


def look_line(count: int, decisions: Sequence[Decision]) -> str:
    """A line on one look. count: seeds then."""
    verdicts = [d.verdict for d in decisions]
    numbers = ", ".join(f"{verdicts.count(v)} {v}" for v in VERDICTS if v in verdicts)
    return f"Look at {count} seeds, {counted(len(decisions), 'pair')}: {numbers}."


def decision_document(decisions: Sequence[Decision], log: SeedLog, count: int) -> list[str | TextTable]:
    """All pairs, and whether anything is left to decide. count: seeds at the last look."""
    rows = []
    for d in decisions:
        seeds, mean = (d.estimate.blocks, f"{100 * d.estimate.mean:+.2f}") if d.estimate else (0, "–")
        p = {"different": d.different, "alike": d.alike}.get(d.verdict)
        rows.append((d.a, d.b, str(seeds), mean, d.verdict, "" if p is None else f"{p:.2g}"))
    margin = f"{100 * log.difference:g} points"
    listing = TextTable(
        ["a", "b"],
        ["seeds", "a − b", "finding", "p"],
        rows,
        f"Pairs after {counted(count, 'seed')}",
        f"a − b: points of test accuracy, mean over exits. alike: they differ by less than {margin}.\n"
        "p is adjusted for every look and pair. The store keeps how seeds were added.",
    )
    return [listing, _left(decisions, log, count)]


def _left(decisions: Sequence[Decision], log: SeedLog, count: int) -> str:
    pairs = {
        v: [f"{d.a} and {d.b}" for d in decisions if d.verdict == v] for v in ("open", "too few images")
    }
    few = (
        f" With these test images no number of seeds is likely to decide "
        f"{_named(pairs['too few images'])}; take more images, or a larger --difference."
        if pairs["too few images"]
        else ""
    )
    if not pairs["open"]:
        return f"{'All else' if few else 'All'} is decided after {counted(count, 'seed')}.{few}"
    if count < len(log.seeds):
        return f"Open: {_named(pairs['open'])}.{few}"
    spent = f"All {counted(len(log.seeds), 'seed')} are used. Open: {_named(pairs['open'])}."
    return spent + few


def _named(pairs: Sequence[str]) -> str:
    """Three of them by name."""
    more = f", and {counted(len(pairs) - 3, 'more pair')}" if len(pairs) > 3 else ""
    return ", ".join(pairs[:3]) + more


def power_line(needed: SeedsNeeded) -> str:
    """How many seeds a difference takes: a sentence or two."""
    points = f"{100 * needed.difference:g} points"
    if needed.typical is None or needed.widest is None:
        return f"Power: {needed.why}."
    typical, widest = (_seeds(pair, needed) for pair in (needed.typical, needed.widest))
    return (
        f"Power: with probability 80 %, among {counted(needed.pairs, 'pair')}, a difference of {points} "
        f"takes {typical} for a typical pair, and {widest} for the widest, {needed.widest.a} and "
        f"{needed.widest.b}. This goes by {counted(needed.seeds, 'seed')} in the store."
    )


def _seeds(pair: PairNeeds, needed: SeedsNeeded) -> str:
    if pair.seeds is not None:
        return counted(pair.seeds, "seed")
    if pair.limit < needed.difference:
        return "more than 500 seeds"
    return (
        f"more test images (any number of seeds shows {100 * pair.limit:.2g} points at best on these "
        f"{needed.images:,})"
    )
