"""The main table: accuracy at every exit, accuracy against compute, and time, by strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from offramp.errors import OfframpError
from offramp.metrics import METRICS
from offramp.policy.quality import at_thresholds
from offramp.report.colors import rank
from offramp.report.model import Column, Table
from offramp.report.runs import Runs
from offramp.report.tables.common import at, gathered, mark_exits
from offramp.store.record import TrialRecord
from offramp.store.table import THRESHOLDS, Spread
from offramp.units import macs

CAPTION = (
    "Test accuracy at each exit and on average over exits, %: mean ± sample standard deviation over "
    "seeds. Marks are within a column, by Holm-adjusted paired differences over {over}, "
    "p < 0.05; what has no mark differs significantly from the best, or could not be tested (see the "
    "notes). Time of training: as written, each phase in full, as the paper runs it{estimated}; as "
    "executed, all that the trial reads; added, what no trial before it in its study reads. The CSV "
    "also has accuracy and compute (share of the plain network's MACs) where {noun}s leave at the first "
    "exit whose confidence (softmax) is at least t."
)


LABELS = (
    "On test, where each image has several labels, at each exit: mean ± sample standard deviation over "
    "seeds; not tested. All labels right: the share of images of which no label is wrong, which is the "
    "accuracy of all other tables. AUROC, average precision and F1 are means over labels; micro: of all "
    "labels of all images taken together."
)
PLAIN = (
    "{}: a plain network of {} MACs ({:.0%} of the network without early exits), {} epochs; tested at "
    "equal compute alone, in another table"
)


def main(runs: Runs) -> list[Table]:
    """Accuracy at each exit, accuracy against compute, and training time."""
    trials = sorted(runs.trials, key=lambda t: (t.seed, t.id))
    names = sorted({t.strategy for t in trials}, key=rank)
    rows, notes = {}, []
    for name in names:
        rows[name], lost = _row(runs, [t for t in trials if t.strategy == name])
        notes += lost
    for control in runs.controls.cheaper:
        accuracy, share = control.accuracy(), control.macs / trials[0].manifest.backbone_macs
        row, lost = _costs(runs, control.trials)
        last = f"exit_{runs.exits[-1]}"
        row |= {"strategy": control.label, last: accuracy.mean, f"{last}_sd": accuracy.sd}
        rows[control.label] = row
        notes += [("", PLAIN.format(control.label, macs(control.macs), share, control.epochs)), *lost]
    best, alike, untested = mark_exits(runs, (None, *runs.exits))
    estimated = not all(t.comparable for t in trials)
    spared = "the MACs that sharing and caching spared, which may take half or twice as long"
    words = f", here an estimate from {spared}" if estimated else ""
    title = f"Accuracy, compute and time: {runs.place}"
    caption = CAPTION.format(estimated=words, over=runs.tested_over, noun=runs.noun)
    frame, columns = pd.DataFrame.from_dict(rows, orient="index"), _columns(runs.exits, estimated)
    if runs.several:
        caption = caption.replace("(softmax)", "in the least sure label")
    table = Table(runs.name("main"), "answer", title, caption, frame, columns, about=runs.about)
    marked = replace(table, best=best, alike=alike, notes=gathered([*notes, *untested]))
    return [marked, *([_labels(runs, names)] if runs.several else [])]


def _labels(runs: Runs, strategies: Sequence[str]) -> Table:
    """Metrics of several labels an image, by exit."""
    metrics = {name: metric for name, metric in METRICS.items() if metric.labels != "one"}
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for strategy in strategies:
        for exit in runs.exits:
            trials = [t for t in runs.of(strategy) if exit in t.exits]
            row = rows[strategy, exit] = {"strategy": strategy, "exit": exit}
            for name in metrics:
                of = [t.manifest.metrics["test"].by_name[name][t.exits.index(exit)] for t in trials]
                row[name], row[f"{name}_sd"] = Spread.of(float(v) for v in of if v is not None)
    columns = (
        Column("strategy", "strategy"),
        Column("exit", "exit", "integer"),
        *(
            Column(
                name,
                "all labels right" if name == "accuracy" else metric.title,
                "percent" if metric.unit == "%" else "number",
                1 if metric.unit == "%" else 3,
                metric.better,
                f"{name}_sd",
            )
            for name, metric in metrics.items()
        ),
    )
    title, frame = f"Metrics of labels: {runs.place}", pd.DataFrame(list(rows.values()))
    place = runs.name("main", "labels")
    return Table(place, "answer", title, LABELS, frame, columns, about=runs.about)


def _columns(exits: Sequence[int], estimated: bool) -> tuple[Column, ...]:
    sign = "~" if estimated else ""
    return (
        Column("strategy", "strategy"),
        *(Column(f"exit_{k}", at(k, exits), "percent", 1, "higher", f"exit_{k}_sd") for k in exits),
        Column("mean", "mean", "percent", 1, "higher", "mean_sd"),
        Column("written", f"{sign}as written", "seconds", 1, "lower", "written_sd"),
        Column("executed", "as executed", "seconds", 1, "lower", "executed_sd"),
        Column("added", "added", "seconds", 1, "lower"),
        Column("seeds", "seeds", "integer"),
    )


def _row(runs: Runs, trials: Sequence[TrialRecord]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    row: dict[str, Any] = {"strategy": trials[0].strategy}
    for k in runs.exits:
        values = [t.manifest.metrics["test"].accuracy[t.exits.index(k)] for t in trials if k in t.exits]
        row[f"exit_{k}"], row[f"exit_{k}_sd"] = Spread.of(values)
    whole = [t for t in trials if t.exits == runs.exits]  # a mean of one exit is none
    row["mean"], row["mean_sd"] = Spread.of(
        float(np.mean(t.manifest.metrics["test"].accuracy)) for t in whole
    )
    costs, notes = _costs(runs, trials)
    return row | costs, notes


def _costs(runs: Runs, trials: Sequence[TrialRecord]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What compute buys, and what training took."""
    row: dict[str, Any] = {}
    points, notes = [], []
    for trial in trials:
        try:
            logits, labels = runs.evidence.logits(trial.id)
        except OfframpError as error:
            notes.append(("", f"trial {trial.id} has no compute: {error}"))
            continue
        plain = runs.trials[0].manifest.backbone_macs
        points.append(at_thresholds(logits, labels, trial.macs, plain, THRESHOLDS))
    for i, threshold in enumerate(THRESHOLDS):
        accuracy, compute = (Spread.of(point[i][k] for point in points) for k in (0, 1))
        row[f"accuracy_at_{threshold:g}"], row[f"accuracy_at_{threshold:g}_sd"] = accuracy
        row[f"compute_at_{threshold:g}"], row[f"compute_at_{threshold:g}_sd"] = compute
    for way in ("written", "executed"):
        row[way], row[f"{way}_sd"] = Spread.of(getattr(t.seconds, way) for t in trials)
    row["added"] = Spread.of(t.seconds.marginal for t in trials).mean
    row["seeds"] = len(trials)
    return row, notes
