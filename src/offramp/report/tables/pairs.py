"""All pairs of strategies: Holm-adjusted paired differences in test accuracy, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from offramp.analysis.measures import MEASURES, Measure
from offramp.analysis.stats.pairwise import ALPHA, Pair, UntestedPair
from offramp.analysis.stats.text import in_seeds
from offramp.report.model import Column, Table, slug
from offramp.report.runs import Runs
from offramp.report.tables.common import at, gathered
from offramp.report.tables.tests import reasons

CAPTION = (
    "Mean difference a − b over the seeds that both have{unit}; positive: a is {more}. "
    "Student's t on paired differences over seeds and test images, both taken as drawn at random; p "
    "adjusted after Holm within this table; intervals are simultaneous, 95 % (Bonferroni). "
    "Detectable: the smallest true difference that is found with a probability of 80 %. Seeds only: "
    "p as if these test images were all there are. Values that come from the same weights are "
    "identical by construction, stand together as a = b, and are never tested against each other."
)


def pairs(runs: Runs, measure: Measure = MEASURES["accuracy-test"]) -> list[Table]:
    """All pairs of strategies: differences in test accuracy, or in another measure, with intervals."""
    tables = []
    kind = "pairs" if measure.name == "accuracy-test" else f"pairs-{measure.name}"
    unit = f", in {measure.difference_unit}" if measure.difference_unit else ""
    caption = CAPTION.format(unit=unit, more="more accurate" if kind == "pairs" else "higher")
    for exit in (None, *runs.exits) if measure.per_exit else (None,):
        analysis = runs.analysis(measure, exit)
        if analysis is None or len(analysis.means) < 2:
            continue
        tested = analysis.pairs
        untested = [("", words) for words in (*analysis.notes, *reasons(analysis))]
        untested += [("", TOUCHING)] if any(_touches(p) for p in tested) else []
        name = slug(runs.name(kind), "overall" if exit is None else f"exit {exit}")
        title = f"Differences in {measure.axis.partition(',')[0]}, {at(exit, runs.exits)}: {runs.place}"
        over = getattr(analysis.over_blocks, "pairs", ())
        alone = {(p.a, p.b): p.p for p in over if isinstance(p, Pair)}
        rows = [{**row_of(p, measure.scale), "seeds": alone.get((p.a, p.b))} for p in tested]
        frame = frame_of(rows, PAIRED_COLUMNS)
        about = runs.about | ({} if exit is None else {"exit": str(exit)})
        lines = gathered(untested)
        table = Table(name, "more", title, caption, frame, PAIRED_COLUMNS, about=about)
        tables.append(replace(table, notes=lines))
    return tables


TOUCHING = (
    "an interval touches zero beside p < 0.05, since Holm's test is a little stronger than simultaneous "
    "intervals"
)
COLUMNS = (
    Column("a", "a"),
    Column("b", "b"),
    Column("difference", "a − b", "number", 2),
    Column("low", "from", "number", 2),
    Column("high", "to", "number", 2),
    Column("p", "p", "p"),
    Column("finding", "finding"),
)


PAIRED_COLUMNS = (
    *COLUMNS[:-1],
    Column("detectable", "detectable", "number", 2),
    Column("seeds", "p, seeds only", "p"),
    COLUMNS[-1],
)


def frame_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[column.key for column in columns])


def _touches(pair: Pair | UntestedPair) -> bool:
    return isinstance(pair, Pair) and pair.p < ALPHA and pair.low <= 0 <= pair.high


def row_of(pair: Pair | UntestedPair, scale: float) -> dict[str, Any]:
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
