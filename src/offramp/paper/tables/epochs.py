"""Epoch metrics (the paper's Table 3): of every exit, and a digest by metric."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from offramp.analysis.measures import Measure
from offramp.analysis.stats.pairwise import POWER
from offramp.paper.families import LETTERS, spelled
from offramp.report.evidence import Evidence
from offramp.report.model import Column, Table
from offramp.report.render.cells import signed
from offramp.report.runs import Runs
from offramp.report.tables.common import EPOCHS, at, gathered
from offramp.report.tables.marks import marks
from offramp.report.tables.tests import reasons

DEFINED = (
    "Least loss: first epoch with the least validation loss. Peak: first with the highest validation "
    "accuracy. Saturated: first from which accuracy stays within 0.5 points of its peak. Overfit: share "
    "of seeds with five epochs in a row whose validation loss is 5 % or more above its minimum while "
    "training loss falls; from: the first of these epochs. Gap: training minus validation accuracy, "
    "points, both in eval mode, at the best and the last epoch. Stability: standard deviation of the "
    "changes of validation loss from epoch to epoch over the last 20 % of epochs, nats; lower is more "
    "stable. All of the last phase that trained the exit, epochs counted from its start. Where "
    "some seeds have no such epoch, means are of the others."
)


def epochs(runs: Runs) -> list[Table]:
    """Epoch metrics of every strategy and exit."""
    rows = _rows(runs)
    if not rows:
        return []
    title, caption = (
        f"Epoch metrics: {runs.place}",
        f"Mean ± sample standard deviation over seeds. {DEFINED}",
    )
    columns = (Column("strategy", "strategy"), Column("exit", "exit"), *map(_column, EPOCHS))
    frame = pd.DataFrame(rows)
    return [Table(runs.name("epochs"), "rq2", title, caption, frame, columns, about=runs.about)]


def _column(measure: Measure) -> Column:
    spread = f"{measure.name}_sd" if measure.spread else None
    return Column(measure.name, measure.column, "number", measure.digits, measure.better, spread)


def _rows(runs: Runs) -> list[Mapping[str, Any]]:
    """Values as they are rows_of_exits: shares in percent, gaps in points."""
    statistics = {}
    for measure in EPOCHS:
        rows_of_exits = runs.observations(measure).dropna(subset="exit")
        values = (rows_of_exits["value"] * measure.scale).groupby(
            [rows_of_exits["strategy"], rows_of_exits["exit"]]
        )
        statistics[measure.name] = (values.mean(), values.std(ddof=1))
    rows: list[Mapping[str, Any]] = []
    for strategy in runs.strategies:
        for exit in runs.exits:
            row: dict[str, Any] = {"strategy": strategy, "exit": at(exit, runs.exits)}
            for name, (mean, sd) in statistics.items():
                key = (strategy, exit)
                row[name] = float(mean.get(key, np.nan))
                row[f"{name}_sd"] = float(sd.get(key, np.nan))
            if any(not pd.isna(row[name]) for name in statistics):
                rows.append(row)
    return rows


def digest(evidence: Evidence) -> list[Table]:
    """Epoch metrics in short: by depth, the best and the worst (Table 3)."""
    rows: list[Mapping[str, Any]] = []
    notes: list[tuple[str, str]] = []
    for measure in EPOCHS:
        for runs in evidence.runs:
            analysis = runs.analysis(measure)
            if analysis is None or len(analysis.means) < 2:
                continue
            marked = marks(analysis, measure.better)
            worst = marks(analysis, "lower" if measure.better == "higher" else "higher")
            separate = not worst.best & (marked.best | marked.alike | marked.untested)
            rows.append(
                {
                    "measure": measure.title,
                    **runs.about,
                    "depth": _depth(runs, measure),
                    "best": f"{_letters(evidence, marked.best)} {_text(marked.mean, measure)}",
                    "alike": f"{_letters(evidence, marked.alike)}{_detectable(marked.least, measure)}",
                    "worst": f"{_letters(evidence, worst.best)} {_text(worst.mean, measure)}"
                    f"{'' if separate else ' ≈'}",
                }
            )
            where = f"{measure.title} ({runs.place})"
            notes += [(where, words) for words in reasons(analysis)]
            if marked.untested and not reasons(analysis):
                lacking = _letters(evidence, marked.untested)
                notes.append((where, f"not tested against the best: {lacking}"))
    if not rows:
        return []
    caption = (
        "Means over exits and seeds. By depth: the mean over strategies and seeds at exit 1, 2, … "
        "Best and worst: strategies and their value; alike: not significantly different from the best "
        "(Holm-adjusted paired differences over seeds, p < 0.05), in brackets the difference that would "
        f"have been found in {100 * POWER:.0f} % of such runs; ≈ after the worst: it is not "
        f"significantly different either, or was not tested. {DEFINED}{spelled(evidence.strategies)}"
    )
    columns = (
        *(Column(key, key) for key in ("measure", "model", "data")),
        Column("depth", "by depth"),
        *(Column(key, key) for key in ("best", "alike", "worst")),
    )
    title, frame, lines = "Epoch metrics in short", pd.DataFrame(rows), gathered(notes)
    return [Table("epochs-digest", "rq2", title, caption, frame, columns, notes=lines)]


def _depth(runs: Runs, measure: Measure) -> str:
    """`12 → 18 → 25`: of strategies that have every exit, so that each counts at every depth."""
    rows = runs.observations(measure).dropna(subset="exit")
    whole = rows.pivot_table(index=["strategy", "seed"], columns="exit", values="value").dropna()
    if whole.empty or whole.shape[1] < 2:
        return "–"
    return " → ".join(_text(mean, measure) for mean in whole.mean())


def _text(value: float, measure: Measure) -> str:
    return signed(f"{value * measure.scale:.{max(measure.digits, 1)}f}")


def _detectable(least: float | None, measure: Measure) -> str:
    return "" if least is None else f" ({_text(least, measure)})"


def _letters(evidence: Evidence, names: Collection[str]) -> str:
    return ", ".join(LETTERS.get(s, s) for s in evidence.among(names)) or "–"
