"""Accuracy by exit with the loss's trend, time and power (the paper's Table 7), and the baseline (6)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offramp.analysis.curves import validation_stability
from offramp.analysis.measures import SECONDS, Measure
from offramp.analysis.stats.pairwise import POWER
from offramp.paper import LETTERS, spelled
from offramp.report.evidence import Evidence
from offramp.report.model import Column, Table
from offramp.report.render.cells import signed
from offramp.report.runs import Runs
from offramp.report.tables.common import EPOCHS, at, gathered, mark_exits, marks, named, unrecorded
from offramp.report.tables.differences import reasons

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
COSTS_SHOWN = named("seconds-written", "power-gpu-mean", "power-cpu-mean")


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


def exits(runs: Runs) -> list[Table]:
    """Accuracy by exit, loss trend, time, power."""
    trends = _trends(runs)
    rows = [{"strategy": s, "trend": trends.get(s, "–"), **_numbers(runs, s)} for s in runs.strategies]
    best, alike, untested = mark_exits(runs, runs.exits)
    estimated = not all(t.comparable for t in runs.trials)
    columns = (
        Column("strategy", "strategy"),
        *(Column(f"exit_{k}", f"E{k}, %", "percent", 1, "higher", f"exit_{k}_sd") for k in runs.exits),
        Column("trend", "loss trend"),
        *(_cost(measure, estimated) for measure in COSTS_SHOWN),
    )
    caption = (
        f"Test accuracy, mean ± sample standard deviation over seeds. {RULE} Training time as the paper "
        f"runs it{', estimated (~)' if estimated else ''}; mean power over training."
    )
    title = f"Accuracy by exit, loss trend, time, power: {runs.place}"
    frame = pd.DataFrame(rows, index=runs.strategies)
    lines = (*unrecorded(runs.evidence, COSTS_SHOWN), *gathered(untested))
    table = Table(runs.name("exits"), "rq1", title, caption, frame, columns, about=runs.about)
    return [replace(table, best=best, alike=alike, notes=lines)]


def _cost(measure: Measure, estimated: bool) -> Column:
    timed = measure.unit == SECONDS
    title = f"~{measure.column}" if estimated and timed else measure.column
    kind: Literal["seconds", "number"] = "seconds" if timed else "number"
    return Column(measure.name, title, kind, measure.digits, measure.better, f"{measure.name}_sd")


def _numbers(runs: Runs, strategy: str) -> dict[str, float]:
    row: dict[str, float] = {}
    for exit in runs.exits:
        row[f"exit_{exit}"], row[f"exit_{exit}_sd"] = runs.spread("accuracy-test", strategy, exit)
    return row | _costs(runs, strategy)


def _costs(runs: Runs, strategy: str) -> dict[str, float]:
    row: dict[str, float] = {}
    for name in (measure.name for measure in COSTS_SHOWN):
        row[name], row[f"{name}_sd"] = runs.spread(name, strategy)
    return row


def _trends(runs: Runs) -> dict[str, str]:
    """The word for each strategy: that of its worst exit."""
    signs: dict[tuple[str, int], list[tuple[float, float]]] = {}
    strategies = {trial.id: trial.strategy for trial in runs.trials}
    for history in runs.evidence.numbers.histories:
        if history.trial in strategies and len(history.loss):
            key = (strategies[history.trial], history.exit)
            signs.setdefault(key, []).append(rise_and_jitter(history.loss))
    words: dict[str, str] = {}
    for (name, _), seen in signs.items():
        word = trend(float(np.mean([r for r, _ in seen])), float(np.mean([j for _, j in seen])))
        words[name] = max(word, words.get(name, STABLE), key=WORDS.index)
    return words


def baseline(evidence: Evidence) -> list[Table]:
    """Networks without early exits (Table 6)."""
    rows, notes = [], []
    for runs in evidence.runs:
        if not runs.of("baseline"):
            notes.append((runs.place, "no baseline was trained"))
            continue
        row: dict[str, Any] = {**runs.about}
        for split in ("validation", "test"):
            row[split], row[f"{split}_sd"] = runs.spread(f"final-accuracy-{split}", "baseline")
        row |= {**_costs(runs, "baseline"), "seeds": len(runs.of("baseline"))}
        rows.append(row)
    if not rows:
        return []
    estimated = not all(t.comparable for t in evidence.trials if t.strategy == "baseline")
    columns = (
        Column("model", "model"),
        Column("data", "data"),
        Column("validation", "validation accuracy, %", "percent", 1, "higher", "validation_sd"),
        Column("test", "test accuracy, %", "percent", 1, "higher", "test_sd"),
        *(_cost(measure, estimated) for measure in COSTS_SHOWN),
        Column("seeds", "seeds", "integer"),
    )
    caption = (
        "The plain network, trained without early exits: mean ± sample standard deviation over seeds. "
        f"The paper prints validation accuracy. Training time as the paper runs it"
        f"{', estimated (~)' if estimated else ''}; mean power over training."
    )
    lines = (*unrecorded(evidence, COSTS_SHOWN), *gathered(notes))
    title, frame = "Networks without early exits", pd.DataFrame(rows)
    return [Table("baseline", "rq2", title, caption, frame, columns, notes=lines)]


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
