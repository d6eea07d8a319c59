"""All pairs of strategies: Holm-adjusted paired differences in test accuracy, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from offramp.analysis.measures import MEASURES
from offramp.analysis.stats.analyze import OneWay
from offramp.analysis.stats.pairwise import ALPHA, Pair, UntestedPair
from offramp.analysis.stats.text import in_seeds
from offramp.report.model import Column, Table
from offramp.report.runs import Runs, slug
from offramp.report.tables.anova import reasons
from offramp.report.tables.common import at, gathered, named

CAPTION = (
    "Mean difference a − b over the seeds that both have, in points; positive: a is more accurate. "
    "Student's t on paired differences over seeds and test images, both taken as drawn at random; p "
    "adjusted after Holm within this table; intervals are simultaneous, 95 % (Bonferroni). "
    "Detectable: the smallest true difference that is found with a probability of 80 %. Seeds only: "
    "p as if these test images were all there are. Values that come from the same weights are "
    "identical by construction, stand together as a = b, and are never tested against each other."
)


def pairs(runs: Runs) -> list[Table]:
    """All pairs of strategies: differences in test accuracy, with intervals."""
    tables = []
    measure = MEASURES["accuracy-test"]
    for exit in (None, *runs.exits):
        analysis = runs.analysis(measure, exit)
        if analysis is None or len(analysis.means) < 2:
            continue
        found = analysis.pairs
        untested = [("", words) for words in (*analysis.notes, *reasons(analysis))]
        untested += [("", _TOUCHING)] if any(_touches(p) for p in found) else []
        name = slug(runs.name("pairs"), "overall" if exit is None else f"exit {exit}")
        title = f"Differences in test accuracy, {at(exit, runs.exits)}: {runs.place}"
        over = getattr(analysis.over_blocks, "pairs", ())
        alone = {(p.a, p.b): p.p for p in over if isinstance(p, Pair)}
        rows = [{**_row(p, measure.scale), "seeds": alone.get((p.a, p.b))} for p in found]
        frame = _frame(rows, _PAIRED)
        about = runs.about | ({} if exit is None else {"exit": str(exit)})
        lines = gathered(untested)
        tables.append(Table(name, "more", title, CAPTION, frame, _PAIRED, about=about, notes=lines))
    return tables


def pairs_one_way(runs: Runs) -> list[Table]:
    """All pairs of core strategies the paper's way."""
    core = runs.families.get("core", ())
    rows, notes = [], []
    for measure in named("loss-validation", "accuracy-validation", "accuracy-test"):
        analysis = runs.analysis(measure, None, core) if core else None
        if analysis is None:
            continue
        way = analysis.one_way
        if not isinstance(way, OneWay):
            notes.append((measure.title, f"not tested, {way.why}"))
            continue
        notes += [(measure.title, words) for words in analysis.notes]
        unequal = way.unequal.pairs if way.unequal is not None else ()
        games = {(p.a, p.b): p.p for p in unequal if isinstance(p, Pair)}
        for pair in way.pairs:
            more = {"games": games.get((pair.a, pair.b))}
            rows.append({"measure": measure.title, **_row(pair, measure.scale), **more})
    if not rows and not notes:
        return []
    games_howell = Column("games", "G–H p", "p")
    columns = (Column("measure", "measure"), *_COLUMNS[:-1], games_howell, _COLUMNS[-1])
    title = f"Differences between core strategies, the paper's way: {runs.place}"
    table = Table(
        runs.name("pairs-one-way"), "more", title, ONE_WAY_CAPTION, _frame(rows, columns), columns
    )
    return [replace(table, about=runs.about, notes=gathered(notes))]


ONE_WAY_CAPTION = (
    "Overall values, the mean over exits. a − b in points of accuracy or nats of cross-entropy; Tukey's "
    "honestly significant differences: p adjusted, intervals simultaneous (95 %); every value counts as "
    "independent of every other, variances as equal. G–H: Games and Howell's p, where Levene's test "
    "rejects equal variances. Both p have a floor of 1e-12. Runs that share seeds or phases are not "
    "independent, so prefer the paired differences."
)
_TOUCHING = (
    "an interval touches zero beside p < 0.05, since Holm's test is a little stronger than simultaneous "
    "intervals"
)
_COLUMNS = (
    Column("a", "a"),
    Column("b", "b"),
    Column("difference", "a − b", "number", 2),
    Column("low", "from", "number", 2),
    Column("high", "to", "number", 2),
    Column("p", "p", "p"),
    Column("finding", "finding"),
)


_PAIRED = (
    *_COLUMNS[:-1],
    Column("detectable", "detectable", "number", 2),
    Column("seeds", "p, seeds only", "p"),
    _COLUMNS[-1],
)


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[column.key for column in columns])


def _touches(pair: Pair | UntestedPair) -> bool:
    return isinstance(pair, Pair) and pair.p < ALPHA and pair.low <= 0 <= pair.high


def _row(pair: Pair | UntestedPair, scale: float) -> dict[str, Any]:
    difference = None if pair.difference is None else pair.difference * scale
    about = {"a": pair.a, "b": pair.b, "difference": difference}
    if not isinstance(pair, Pair):
        return {
            **about,
            "low": None,
            "high": None,
            "p": None,
            "finding": f"not tested: {in_seeds(pair.why)}",
        }
    finding = "not significant"
    if pair.p < ALPHA:
        finding = "a is higher" if pair.difference > 0 else "b is higher"
    ends = pair.low * scale, pair.high * scale
    wide = scale == 100.0 and max(map(abs, ends)) > 100  # no difference of accuracies is that large
    numbers = {"low": None if wide else ends[0], "high": None if wide else ends[1], "p": pair.p}
    if pair.detectable is not None:
        numbers["detectable"] = pair.detectable * scale
    return {**about, **numbers, "finding": finding}
