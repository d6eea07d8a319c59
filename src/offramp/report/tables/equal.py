"""Accuracy at equal compute: what every strategy makes of the same MACs, with early exits in use."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from offramp.analysis.recommend.equal import Level
from offramp.analysis.stats.pairwise import least_shown
from offramp.report.colors import rank
from offramp.report.model import Column, Table
from offramp.report.runs import Runs
from offramp.report.tables.common import gathered
from offramp.report.tables.marks import power
from offramp.units import macs

CAPTION = (
    "Mean test accuracy over seeds, %, where an image takes these MACs on average. One confidence "
    "threshold for all exits, chosen so that this much is spent: no label is used for that. Compute "
    "is that of all exits asked: of separate networks, their sum. Marks are within a column, over "
    "seeds and test images, p adjusted over all pairs and columns. A value without a mark is "
    "significantly less accurate than the best, or could not be tested (see the notes)."
)


def equal(runs: Runs) -> list[Table]:
    """Accuracy at equal compute."""
    levels = runs.levels
    if not levels:
        return []
    rows: dict[str, dict[str, float]] = {}
    best, alike, notes, least_of = set(), set(), [], []
    for n, level in enumerate(levels):
        top = next(iter(level.means))
        for label, mean in level.means.items():
            for name in label.split(" = "):
                rows.setdefault(name, {"strategy": name})[f"at_{n}"] = mean  # type: ignore[dict-item]
                if mean == level.means[top]:
                    best.add((name, f"at_{n}"))
                elif label not in level.untested and not level.beats(top, label):
                    alike.add((name, f"at_{n}"))
        least = least_shown(p for p in level.pairs if top in (p.a, p.b))
        least_of += [(macs(level.macs), least)] if least is not None else []
        why = level.why or f"not tested against the best: {', '.join(level.untested)}"
        notes += [(macs(level.macs), why)] if level.why or level.untested else []
    frame = pd.DataFrame.from_dict({name: rows[name] for name in sorted(rows, key=rank)}, orient="index")
    columns = (Column("strategy", "strategy"), *(_column(n, level) for n, level in enumerate(levels)))
    title = f"Accuracy at equal compute: {runs.place}"
    table = Table(runs.name("equal"), "answer", title, CAPTION, frame, columns, about=runs.about)
    return [
        replace(
            table,
            best=frozenset(best),
            alike=frozenset(alike),
            notes=gathered([*notes, *power(least_of)]),
        )
    ]


def _column(n: int, level: Level) -> Column:
    return Column(f"at_{n}", f"{macs(level.macs)} MACs", "percent", 1, "higher")
