"""Epoch metrics (the paper's Table 3): of every exit, and a digest by metric."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from offramp.analysis.measures import Measure
from offramp.report.findings import Findings
from offramp.report.model import Column, Table
from offramp.report.tables.anova import reasons
from offramp.report.tables.common import SHORT, at, gathered, place, slug, spelled
from offramp.report.tables.groups import EPOCHS
from offramp.report.tables.marks import marks

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
TITLES = {
    "min-loss-epoch": "least loss, epoch",
    "peak-epoch": "peak, epoch",
    "saturation-epoch": "saturated, epoch",
    "overfits": "overfit, %",
    "overfitting-epoch": "from, epoch",
    "generalization-gap-best": "gap best",
    "generalization-gap-last": "gap last",
    "validation-stability": "stability",
}
DIGITS = {"generalization-gap-best": 1, "generalization-gap-last": 1, "validation-stability": 3}


def epochs(found: Findings) -> list[Table]:
    """Epoch metrics of every strategy and exit (Table 3)."""
    tables = []
    for model, data in found.evidence.pairs:
        rows = _rows(found, model, data)
        if rows:
            about = {"model": model, "data": data}
            caption = f"Mean ± sample standard deviation over seeds. {DEFINED}"
            columns = (Column("strategy", "strategy"), Column("exit", "exit"), *map(_column, EPOCHS))
            tables.append(
                Table(
                    slug("epochs", model, data),
                    "rq2",
                    f"Epoch metrics: {place(model, data)}",
                    caption,
                    pd.DataFrame(rows),
                    columns,
                    "Table 3",
                    about,
                )
            )
    return tables


def _column(measure: Measure) -> Column:
    digits = DIGITS.get(measure.name, 0)
    spread = None if measure.name == "overfits" else f"{measure.name}_sd"
    return Column(measure.name, TITLES[measure.name], "number", digits, measure.better, spread)


def _rows(found: Findings, model: str, data: str) -> list[Mapping[str, Any]]:
    """Values as they are shown: shares in percent, gaps in points."""
    exits = found.exits(model, data)
    statistics = {}
    for measure in EPOCHS:
        shown = found.observations(model, data, measure).dropna(subset="exit")
        values = (shown["value"] * measure.scale).groupby([shown["strategy"], shown["exit"]])
        statistics[measure.name] = (values.mean(), values.std(ddof=1))
    rows: list[Mapping[str, Any]] = []
    for strategy in (s for s in found.evidence.strategies if found.evidence.of(model, data, s)):
        for exit in exits:
            row: dict[str, Any] = {"strategy": strategy, "exit": at(exit, exits)}
            for name, (mean, sd) in statistics.items():
                key = (strategy, exit)
                row[name] = float(mean[key]) if key in mean.index else float("nan")
                row[f"{name}_sd"] = float(sd[key]) if key in sd.index else float("nan")
            if any(not pd.isna(row[name]) for name in statistics):
                rows.append(row)
    return rows


def digest(found: Findings) -> list[Table]:
    """Epoch metrics in short: by depth, the best and the worst (Table 3)."""
    rows: list[Mapping[str, Any]] = []
    notes: list[tuple[str, str]] = []
    for measure in EPOCHS:
        for model, data in found.evidence.pairs:
            analysis = found.analysis(model, data, measure)
            if analysis is None or len(analysis.means) < 2:
                continue
            means = sorted(
                analysis.means, key=lambda m: m.mean if measure.better == "lower" else -m.mean
            )
            marked = marks(analysis, measure.better)
            worst = {n for m in means if m.mean == means[-1].mean for n in m.group.split(" = ")}
            separate = not worst & (marked.best | marked.alike | marked.untested)
            rows.append(
                {
                    "measure": measure.title,
                    "model": model,
                    "data": data,
                    "depth": _depth(found, model, data, measure),
                    "best": f"{_letters(found, marked.best)} {_text(means[0].mean, measure)}",
                    "alike": _letters(found, marked.alike),
                    "worst": f"{_letters(found, worst)} {_text(means[-1].mean, measure)}"
                    f"{'' if separate else ' ≈'}",
                }
            )
            where = f"{measure.title} ({place(model, data)})"
            notes += [(where, words) for words in reasons(analysis)]
            if marked.untested and not reasons(analysis):
                notes.append((where, f"not tested against the best: {_letters(found, marked.untested)}"))
    if not rows:
        return []
    caption = (
        "Means over exits and seeds. By depth: the mean over strategies and seeds at exit 1, 2, … "
        "Best and worst: strategies and their value; alike: not significantly different from the best "
        "(Holm-adjusted paired differences over seeds, p < 0.05); ≈ after the worst: neither is it, or "
        f"it was not tested. {DEFINED} {spelled(found.evidence.strategies)}."
    )
    columns = (
        *(Column(key, key) for key in ("measure", "model", "data")),
        Column("depth", "by depth"),
        *(Column(key, key) for key in ("best", "alike", "worst")),
    )
    title, frame, lines = "Epoch metrics in short", pd.DataFrame(rows), gathered(notes)
    return [Table("epochs-digest", "rq2", title, caption, frame, columns, "Table 3", notes=lines)]


def _depth(found: Findings, model: str, data: str, measure: Measure) -> str:
    """`12 → 18 → 25`: of strategies that have every exit, so that each counts at every depth."""
    rows = found.observations(model, data, measure).dropna(subset="exit")
    table = rows.pivot_table(index=["strategy", "seed"], columns="exit", values="value")
    whole = table.dropna()
    if whole.empty or whole.shape[1] < 2:
        return "–"
    return " → ".join(_text(mean, measure) for mean in whole.mean())


def _text(value: float, measure: Measure) -> str:
    return f"{value * measure.scale:.{DIGITS.get(measure.name, 1)}f}".replace("-", "−")


def _letters(found: Findings, names: Collection[str]) -> str:
    ordered = [s for s in found.evidence.strategies if s in names]
    return ", ".join(SHORT.get(s, s) for s in ordered) or "–"
