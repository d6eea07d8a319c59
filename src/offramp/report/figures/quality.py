"""One number for each exit: accuracy, how good its confidence is, overthinking. On test."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from offramp.policy.quality import BINS
from offramp.report.evidence import Evidence
from offramp.report.figures.chart import spec
from offramp.report.figures.dots import Panel, dots, spelled, spread
from offramp.report.figures.naming import about, name, where
from offramp.report.model import Figure
from offramp.report.record import Trial

Value = Callable[[Trial, int], float | None]  # of a trial's exit, by its place among the exits


def accuracy_by_exit(evidence: Evidence) -> list[Figure]:
    """Test accuracy of every exit, a figure for each pair."""
    figures = []
    for model, data in evidence.pairs:
        panels = _panels(
            evidence, model, data, lambda t, i: 100 * t.accuracy["test"][i], "test accuracy, %"
        )
        labels = evidence.among(t.strategy for t in evidence.of(model, data))
        figures.append(
            Figure(
                name=name("accuracy-by-exit", model, data),
                question="answer",
                title="Test accuracy by exit",
                caption="Test accuracy of each exit when every image leaves there, "
                f"{where(model, data)}; higher is better. {spread(panels)}",
                alt="Dot plots, one for each exit. "
                + " ".join(f"{p.title}: {spelled(p, labels)}." for p in panels),
                spec=spec(dots(panels, labels)),
                about=about(model, data),
            )
        )
    return figures


def confidence(evidence: Evidence) -> list[Figure]:
    """Calibration error, and how well confidence tells right from wrong, by exit."""
    figures = []
    for model, data in evidence.pairs:
        labels = evidence.among(t.strategy for t in evidence.of(model, data))
        errors = _panels(
            evidence,
            model,
            data,
            lambda t, i: _percent(evidence.outcomes[t.id].ece[i]),
            "ECE, %",
            zero=True,
        )
        tells = _panels(
            evidence, model, data, lambda t, i: evidence.outcomes[t.id].auroc[i], "AUROC of correctness"
        )
        panels = [panel for pair in zip(errors, tells, strict=True) for panel in pair]
        figures.append(
            Figure(
                name=name("confidence-quality", model, data),
                question="more",
                title="Calibration error and discrimination",
                caption="Left: expected calibration error of the confidence (largest softmax "
                f"probability, {BINS} bins of equal width), lower is better. Right: the chance that a "
                "right answer is more confident than a wrong one (AUROC), higher is better and 0.5 is "
                "chance; a threshold lives off the right side, whatever the left one says. Test images, "
                f"{where(model, data)}. {spread(panels)}",
                alt="Dot plots, a row for each exit. "
                + " ".join(f"{p.title}, {p.axis}: {spelled(p, labels)}." for p in panels),
                spec=spec(dots(panels, labels)),
                about=about(model, data),
            )
        )
    return figures


def overthinking(evidence: Evidence) -> list[Figure]:
    """Images that an early exit has right and the last one wrong."""
    figures = []
    for model, data in evidence.pairs:
        several = [t for t in evidence.of(model, data) if len(t.exits) > 1]
        if not several:
            continue
        labels = evidence.among(t.strategy for t in several)
        axis = "right here, wrong last, %"
        early = _panels(
            evidence,
            model,
            data,
            lambda t, i: 100 * evidence.outcomes[t.id].overthought[i] if i < len(t.exits) - 1 else None,
            axis,
            zero=True,
        )
        rows = [(t.strategy, t.seed, 100 * evidence.outcomes[t.id].lost) for t in several]
        frame = pd.DataFrame(rows, columns=["strategy", "seed", "value"])
        panels = [*early, Panel("any early exit", axis, frame, zero=True)]
        figures.append(
            Figure(
                name=name("overthinking", model, data),
                question="more",
                title="Overthinking",
                caption="Share of test images that an early exit answers right and the last exit wrong, "
                f"{where(model, data)}: what the later layers spoil, and what a perfect choice of exits "
                f"could win over the last one. {spread(panels)}",
                alt="Dot plots, one for each early exit and one for all of them. "
                + " ".join(f"{p.title}: {spelled(p, labels)}." for p in panels),
                spec=spec(dots(panels, labels)),
                about=about(model, data),
            )
        )
    return figures


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _panels(
    evidence: Evidence, model: str, data: str, value: Value, axis: str, zero: bool = False
) -> list[Panel]:
    """A panel for each exit for which there is any value."""
    rows = [
        (exit, t.strategy, t.seed, value(t, i))
        for t in evidence.of(model, data)
        for i, exit in enumerate(t.exits)
    ]
    found = pd.DataFrame(rows, columns=["exit", "strategy", "seed", "value"])
    found = found.astype({"value": float}).dropna(subset=["value"])
    last = max((t.final for t in evidence.of(model, data)), default=0)
    return [
        Panel(f"exit {exit}{' (final)' if exit == last else ''}", axis, part, zero)
        for exit, part in found.groupby("exit", sort=True)
    ]
