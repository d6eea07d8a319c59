"""Accuracy by exit with the loss's trend, time and power (the paper's Table 7), and the baseline (6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offramp.analysis.epochs import validation_stability
from offramp.analysis.measures import MEASURES
from offramp.report.findings import Findings
from offramp.report.model import Column, Table
from offramp.report.tables.common import gathered, place, slug
from offramp.report.tables.groups import unrecorded
from offramp.report.tables.marks import mark_exits

STABLE, MODERATE, UNSTABLE, DIVERGENT = "stable", "moderate", "unstable", "divergent"
RULE = (
    "Loss trend, from the validation loss of the exit that is worst by it, in the last phase that "
    "trained it: rise r, how far the last epoch is above the least loss, and jitter j, the standard "
    "deviation of the changes from epoch to epoch over the last 20 % of epochs, both as shares of the "
    "least loss and averaged over seeds. "
    "Stable: r and j below 5 %; moderate: r below 25 % and j below 15 %; unstable: r below 100 %; "
    "divergent: more, or not finite."
)
WORDS = (STABLE, MODERATE, UNSTABLE, DIVERGENT)
COST_COLUMNS = (
    ("seconds-written", "time as written", "seconds", 1),
    ("power-gpu-mean", "GPU power, W", "number", 1),
    ("power-cpu-mean", "CPU power, W", "number", 1),
)
COSTS_SHOWN = tuple(MEASURES[name] for name, *_ in COST_COLUMNS)


def trend(rise: float, jitter: float) -> str:
    """The word for a validation loss; rise and jitter are shares of the least loss."""
    if not np.isfinite(rise) or rise >= 1.0:
        return DIVERGENT
    if rise < 0.05 and jitter < 0.05:
        return STABLE
    return MODERATE if rise < 0.25 and jitter < 0.15 else UNSTABLE


def rise_and_jitter(loss: NDArray[np.float64]) -> tuple[float, float]:
    """Of a validation loss by epoch of one phase, [n]. Too few epochs for a jitter count as none."""
    least = loss.min() if np.isfinite(loss).all() else np.nan
    if not least > 0:
        return float("inf"), float("inf")
    return float(loss[-1] / least - 1), (validation_stability(loss) or 0.0) / float(least)


def exits(found: Findings) -> list[Table]:
    """Accuracy by exit, loss trend, time, power (Table 7)."""
    return [_exits(found, model, data) for model, data in found.evidence.pairs]


def _exits(found: Findings, model: str, data: str) -> Table:
    numbers = found.exits(model, data)
    trends = _trends(found, model, data)
    names = [s for s in found.evidence.strategies if found.evidence.of(model, data, s)]
    frame = pd.DataFrame([_row(found, model, data, s, trends) for s in names], index=names)
    best, alike, untested = mark_exits(found, model, data)
    estimated = not all(t.comparable for t in found.evidence.of(model, data))
    columns = (
        Column("strategy", "strategy"),
        *(Column(f"exit_{k}", f"E{k}, %", "percent", 1, "higher", f"exit_{k}_sd") for k in numbers),
        Column("trend", "loss trend"),
        *(_cost(name, title, kind, digits, estimated) for name, title, kind, digits in COST_COLUMNS),
    )
    caption = (
        f"Test accuracy, mean ± sample standard deviation over seeds. {RULE} Training time as the paper "
        f"runs it{', estimated (~)' if estimated else ''}; mean power over training."
    )
    return Table(
        slug("exits", model, data),
        "rq1",
        f"Accuracy by exit, loss trend, time, power: {place(model, data)}",
        caption,
        frame,
        columns,
        "Table 7",
        about={"model": model, "data": data},
        best=best,
        alike=alike,
        notes=(*unrecorded(found, COSTS_SHOWN), *gathered(untested)),
    )


def _cost(name: str, title: str, kind: Any, digits: int, estimated: bool) -> Column:
    sign = "~" if estimated and kind == "seconds" else ""
    return Column(name, sign + title, kind, digits, "lower", f"{name}_sd")


def _row(
    found: Findings, model: str, data: str, strategy: str, trends: Mapping[str, str]
) -> dict[str, Any]:
    row: dict[str, Any] = {"strategy": strategy, "trend": trends.get(strategy, "–")}
    for exit in found.exits(model, data):
        mean, sd = found.spread(model, data, "accuracy-test", strategy, exit)
        row[f"exit_{exit}"], row[f"exit_{exit}_sd"] = mean, sd
    for name, *_ in COST_COLUMNS:
        row[name], row[f"{name}_sd"] = found.spread(model, data, name, strategy)
    return row


def _trends(found: Findings, model: str, data: str) -> dict[str, str]:
    """The word for each strategy: that of its worst exit."""
    signs: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for trial in sorted(found.evidence.of(model, data), key=lambda t: t.id):
        for history in found.histories.get(trial.id, ()):
            if len(history.loss):
                key = (trial.strategy, history.exit)
                signs.setdefault(key, []).append(rise_and_jitter(history.loss))
    words: dict[str, str] = {}
    for (name, _), seen in signs.items():
        word = trend(float(np.mean([r for r, _ in seen])), float(np.mean([j for _, j in seen])))
        words[name] = max(word, words.get(name, STABLE), key=WORDS.index)
    return words


def baseline(found: Findings) -> list[Table]:
    """Networks without early exits (Table 6)."""
    rows, notes = [], []
    for model, data in found.evidence.pairs:
        if not found.evidence.of(model, data, "baseline"):
            notes.append((place(model, data), "no baseline was trained"))
            continue
        row: dict[str, Any] = {"model": model, "data": data}
        for split in ("validation", "test"):
            name = f"final-accuracy-{split}"
            row[split], row[f"{split}_sd"] = found.spread(model, data, name, "baseline")
        for name, *_ in COST_COLUMNS:
            row[name], row[f"{name}_sd"] = found.spread(model, data, name, "baseline")
        row["seeds"] = len(found.evidence.of(model, data, "baseline"))
        rows.append(row)
    if not rows:
        return []
    trials = [t for pair in found.evidence.pairs for t in found.evidence.of(*pair, "baseline")]
    estimated = not all(t.comparable for t in trials)
    columns = (
        Column("model", "model"),
        Column("data", "data"),
        Column("validation", "validation accuracy, %", "percent", 1, "higher", "validation_sd"),
        Column("test", "test accuracy, %", "percent", 1, "higher", "test_sd"),
        *(_cost(name, title, kind, digits, estimated) for name, title, kind, digits in COST_COLUMNS),
        Column("seeds", "seeds", "integer"),
    )
    caption = (
        "The plain network, trained without early exits: mean ± sample standard deviation over seeds. "
        f"The paper prints validation accuracy. Training time as the paper runs it"
        f"{', estimated (~)' if estimated else ''}; mean power over training."
    )
    lines = (*unrecorded(found, COSTS_SHOWN), *gathered(notes))
    title = "Networks without early exits"
    frame = pd.DataFrame(rows)
    return [Table("baseline", "rq2", title, caption, frame, columns, "Table 6", notes=lines)]
