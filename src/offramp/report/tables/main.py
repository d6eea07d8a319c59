"""The main table: accuracy at every exit, accuracy against compute, and time, by strategy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from offramp.analysis.exits import at_thresholds
from offramp.errors import OfframpError
from offramp.report.evidence import Evidence
from offramp.report.findings import Findings
from offramp.report.model import Column, Table
from offramp.report.record import Trial
from offramp.report.tables.common import gathered, place, slug
from offramp.report.tables.marks import mark_exits
from offramp.store.summary import THRESHOLDS, Spread

CAPTION = (
    "Test accuracy at each exit, %: mean ± sample standard deviation over seeds. Marks are within a "
    "column, by Holm-adjusted paired differences over seeds, p < 0.05; what has no mark differs "
    "significantly from the best, or could not be tested (see the notes). "
    "≥ t: accuracy, %, @ compute, % of the plain network's MACs, where an image leaves at the first "
    "exit whose confidence (softmax) is at least t. Time of training: as written, each phase in full, "
    "as the paper runs it{estimated}; as executed, all that the trial reads; added, what no trial "
    "before it in its study reads."
)


def main(found: Findings) -> list[Table]:
    """Accuracy at each exit, against compute, and training time: the main table."""
    return [_main(found, model, data) for model, data in found.evidence.pairs]


def _main(found: Findings, model: str, data: str) -> Table:
    evidence = found.evidence
    trials = sorted(evidence.of(model, data), key=lambda t: (t.seed, t.id))
    exits = found.exits(model, data)
    names = tuple(dict.fromkeys(t.strategy for t in sorted(trials, key=lambda t: t.rank)))
    rows, notes = {}, []
    for name in names:
        rows[name], lost = _row(evidence, [t for t in trials if t.strategy == name], exits)
        notes += lost
    best, alike, untested = mark_exits(found, model, data)
    estimated = not all(t.comparable for t in trials)
    words = ", here an estimate from the MACs that sharing and caching spared" if estimated else ""
    return Table(
        slug("main", model, data),
        "answer",
        f"Accuracy, compute and time: {place(model, data)}",
        CAPTION.format(estimated=words),
        pd.DataFrame.from_dict(rows, orient="index"),
        _columns(exits, estimated),
        about={"model": model, "data": data},
        best=best,
        alike=alike,
        notes=gathered([*notes, *untested]),
    )


def _columns(exits: Sequence[int], estimated: bool) -> tuple[Column, ...]:
    def title(k: int) -> str:
        return "final" if k == exits[-1] else f"exit {k}"

    sign = "~" if estimated else ""
    return (
        Column("strategy", "strategy"),
        *(Column(f"exit_{k}", title(k), "percent", 1, "higher", f"exit_{k}_sd") for k in exits),
        *(Column(f"at_{t:g}", f"≥ {t:g}") for t in THRESHOLDS),
        Column("written", f"{sign}as written", "seconds", 1, "lower", "written_sd"),
        Column("executed", "as executed", "seconds", 1, "lower", "executed_sd"),
        Column("added", "added", "seconds", 1, "lower"),
        Column("seeds", "seeds", "integer"),
    )


def _row(
    evidence: Evidence, trials: Sequence[Trial], exits: Sequence[int]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    row: dict[str, Any] = {"strategy": trials[0].strategy}
    for k in exits:
        values = [t.accuracy["test"][t.exits.index(k)] for t in trials if k in t.exits]
        row[f"exit_{k}"], row[f"exit_{k}_sd"] = spread(values)
    points: dict[float, list[tuple[float, float]]] = {t: [] for t in THRESHOLDS}
    notes = []
    for trial in trials:
        try:
            logits, labels = evidence.logits(trial.id)
        except OfframpError as error:
            notes.append(("", f"trial {trial.id} has no compute: {error}"))
            continue
        found = at_thresholds(logits, labels, trial.macs, trial.backbone_macs, THRESHOLDS)
        for point in found:
            points[point.threshold].append((point.accuracy, point.compute))
    for threshold, pairs in points.items():
        accuracy, compute = spread([a for a, _ in pairs]), spread([c for _, c in pairs])
        text = f"{100 * accuracy[0]:.1f} @ {100 * compute[0]:.0f}" if pairs else "–"
        row[f"at_{threshold:g}"] = text
        row[f"accuracy_at_{threshold:g}"], row[f"accuracy_at_{threshold:g}_sd"] = accuracy
        row[f"compute_at_{threshold:g}"], row[f"compute_at_{threshold:g}_sd"] = compute
    row["written"], row["written_sd"] = spread([t.seconds.written for t in trials])
    row["executed"], row["executed_sd"] = spread([t.seconds.executed for t in trials])
    row["added"] = spread([t.seconds.marginal for t in trials])[0]
    row["seeds"] = len(trials)
    return row, notes


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN where there are no values, or one."""
    if not values:
        return float("nan"), float("nan")
    found = Spread.of(values)
    return found.mean, found.sd
