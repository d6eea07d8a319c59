"""All pairs of strategies: Holm-adjusted paired differences in test accuracy, with intervals."""

from __future__ import annotations

from typing import Any

import pandas as pd

from offramp.analysis.measures import MEASURES
from offramp.analysis.stats.pairs import Pair
from offramp.report.findings import Findings
from offramp.report.model import Column, Table
from offramp.report.tables.anova import reasons
from offramp.report.tables.common import at, gathered, place, slug
from offramp.report.tables.marks import ALPHA, default_pairs

CAPTION = (
    "Mean difference a − b over the seeds that both have, in points; Student's t on paired differences, "
    "p adjusted after Holm within this table; intervals hold all together with 95 % (Bonferroni). "
    "Positive: a is more accurate. Values that come from the same weights are identical by "
    "construction, stand together as a = b, and are never tested against each other."
)


def pairs(found: Findings) -> list[Table]:
    """A table for each exit and one overall."""
    tables = []
    measure = MEASURES["accuracy-test"]
    for model, data in found.evidence.pairs:
        exits = found.exits(model, data)
        for exit in (None, *exits):
            analysis = found.analysis(model, data, measure, exit)
            if analysis is None or len(analysis.means) < 2:
                continue
            where = at(exit, exits)
            rows = [_row(p, measure.scale) for p in default_pairs(analysis)]
            name = slug("pairs", model, data, "overall" if exit is None else f"exit {exit}")
            about = {"model": model, "data": data} | ({} if exit is None else {"exit": str(exit)})
            untested = [("", words) for words in (*analysis.notes, *reasons(analysis))]
            touching = any(r["p"] is not None and r["p"] < ALPHA and r["low"] <= 0 <= r["high"] for r in rows)
            if touching:
                untested.append(("", _TOUCHING))
            tables.append(
                Table(
                    *(name, "more", f"Differences in test accuracy, {where}: {place(model, data)}"),
                    CAPTION,
                    pd.DataFrame(rows, columns=list(_KEYS)),
                    _COLUMNS,
                    about=about,
                    notes=gathered(untested),
                )
            )
    return tables


_TOUCHING = (
    "an interval touches zero beside p < 0.05, since Holm's test is a little stronger than intervals "
    "that hold all together"
)
_COLUMNS = (
    Column("a", "a"),
    Column("b", "b"),
    Column("difference", "a − b, points", "number", 2),
    Column("low", "from", "number", 2),
    Column("high", "to", "number", 2),
    Column("p", "p", "p"),
    Column("finding", "finding"),
)
_KEYS = tuple(column.key for column in _COLUMNS)


def _row(pair: Any, scale: float) -> dict[str, Any]:
    difference = None if pair.difference is None else pair.difference * scale
    about = {"a": pair.a, "b": pair.b, "difference": difference}
    if not isinstance(pair, Pair):
        return {**about, "low": None, "high": None, "p": None, "finding": f"not tested: {pair.why}"}
    finding = "not significant"
    if pair.p < ALPHA:
        finding = "a is higher" if pair.difference > 0 else "b is higher"
    numbers = {"low": pair.low * scale, "high": pair.high * scale, "p": pair.p}
    return {**about, **numbers, "finding": finding}
