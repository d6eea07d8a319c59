"""Reliability diagrams, and how often exits agree. On test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from offramp.policy.quality import BINS
from offramp.report import series
from offramp.report.evidence import Evidence
from offramp.report.figures.chart import (
    GRAY,
    WIDTH,
    Json,
    color,
    dash,
    grid,
    marks,
    number,
    panel,
    rank,
    spec,
    tips,
)
from offramp.report.figures.naming import about, name, where
from offramp.report.model import Figure

FEWEST = 10  # images in a bin over all seeds: fewer say nothing


def reliability(evidence: Evidence) -> list[Figure]:
    """Accuracy against confidence in bins, a panel for each exit."""
    figures = []
    for model, data in evidence.pairs:
        found = reliability_bins(evidence, model, data)
        labels = evidence.among(found["strategy"])
        exits = sorted(int(k) for k in found["exit"].unique())
        panels = [_reliability(found[found["exit"] == k], labels, f"exit {k}") for k in exits]
        seeds = len({t.seed for t in evidence.of(model, data)})
        figures.append(
            Figure(
                name=name("reliability", model, data),
                question="more",
                title="Reliability",
                caption="Share of right answers among test images of like confidence, "
                f"{where(model, data)}; {BINS} bins, those of at least {FEWEST} images, images of "
                f"{series.counted(seeds)} together. On the gray diagonal confidence means what it "
                "says; below it an exit is too sure of itself.",
                alt=_alt(found, labels),
                spec=spec(grid(panels, 2)),
                about=about(model, data),
            )
        )
    return figures


def reliability_bins(evidence: Evidence, model: str, data: str) -> pd.DataFrame:
    """Columns strategy, exit, confidence (mean of the bin, %), value (accuracy, %), images."""
    rows = []
    for strategy in evidence.strategies:
        summed: dict[int, Any] = {}
        for trial in evidence.of(model, data, strategy):
            for i, exit in enumerate(trial.exits):
                summed[exit] = summed.get(exit, 0) + evidence.outcomes[trial.id].bins[i]
        for exit, bins in sorted(summed.items()):
            for images, sure, right in bins:
                if images >= FEWEST:
                    rows.append((strategy, exit, 100 * sure / images, 100 * right / images, int(images)))
    return pd.DataFrame(rows, columns=["strategy", "exit", "confidence", "value", "images"])


def agreement(evidence: Evidence) -> list[Figure]:
    """How often two exits give one answer, a matrix for each strategy."""
    figures = []
    for model, data in evidence.pairs:
        frames = {s: agreement_matrix(evidence, model, data, s) for s in evidence.strategies}
        frames = {s: frame for s, frame in frames.items() if len(frame) > 1}
        if not frames:
            continue
        panels = [_matrix(frame, s) for s, frame in frames.items()]
        spelled = ", ".join(f"{s} {frame['value'].min():.0f} %" for s, frame in frames.items())
        seeds = len({t.seed for t in evidence.of(model, data)})
        figures.append(
            Figure(
                name=name("agreement", model, data),
                question="more",
                title="Agreement of exits",
                caption="Share of test images, in percent, on which two exits give the same answer, "
                f"right or wrong, {where(model, data)}. Means over {series.counted(seeds)}.",
                alt="A matrix of exits for each strategy. The least agreement of any two exits: "
                f"{spelled}.",
                spec=spec(grid(panels, 3)),
                about=about(model, data),
            )
        )
    return figures


def agreement_matrix(evidence: Evidence, model: str, data: str, strategy: str) -> pd.DataFrame:
    """Columns exit, other, value (%), for each pair of exits, each once."""
    trials = evidence.of(model, data, strategy)
    if not trials:
        return pd.DataFrame(columns=["exit", "other", "value"])
    exits = trials[0].exits
    mean = np.mean([evidence.outcomes[t.id].agreement for t in trials if t.exits == exits], axis=0)
    rows = [(exits[i], exits[k], 100 * mean[i, k]) for i in range(len(exits)) for k in range(i)]
    return pd.DataFrame(rows, columns=["exit", "other", "value"])


def _reliability(found: pd.DataFrame, labels: list[str], title: str) -> Json:
    scale = {"domain": [0, 100]}
    x = number("confidence", "confidence, %", scale=scale, axis={"tickCount": 5, "grid": False})
    y = number("value", "accuracy, %", scale=scale, axis={"tickCount": 5})
    told = (("confidence", "confidence, %"), ("value", "accuracy, %"), ("images", "images"))
    lines = marks(
        found[["strategy", "confidence", "value", "images"]],
        {"type": "line", "strokeWidth": 1.4, "point": {"size": 10}},
        {
            **{"x": x, "y": y, "color": color(labels, "stroke"), "strokeDash": dash(labels)},
            "tooltip": tips(("strategy", "strategy"), *told),
        },
    )
    diagonal = marks(
        pd.DataFrame({"confidence": [0, 100], "value": [0, 100]}),
        {"type": "line", "stroke": GRAY, "opacity": 0.35, "strokeWidth": 5},
        {"x": x, "y": y},
    )
    side = (WIDTH - 100) // 2
    return panel([lines, diagonal], side, side, title)


def _matrix(frame: pd.DataFrame, title: str) -> Json:
    axis = {"grid": False, "ticks": False, "domain": False, "labelAngle": 0}
    place = {"x": rank("other", "exit", axis=axis), "y": rank("exit", axis=axis)}
    # A scale of its own for each half would hide that 95 % is much: the same one everywhere, from 0.
    shade = {"domain": [0, 100], "range": ["#5a94cc20", "#5a94cc"]}
    cells = marks(frame, {"type": "rect"}, {**place, "color": number("value", scale=shade, legend=None)})
    text = {"field": "value", "type": "quantitative", "format": ".0f"}
    return panel(
        [cells, marks(frame, {"type": "text", "fontSize": 10}, {**place, "text": text})], 96, 72, title
    )


def _alt(found: pd.DataFrame, labels: list[str]) -> str:
    gaps = []
    for label in labels:
        mine = found[(found["strategy"] == label) & (found["exit"] == found["exit"].max())]
        if len(mine):
            gap = np.average(mine["confidence"] - mine["value"], weights=mine["images"])
            gaps.append(f"{label} {gap:+.1f}")
    return (
        "Line charts of accuracy against confidence, one for each exit. At the last exit confidence "
        f"exceeds accuracy by, in points: {', '.join(gaps)}."
    )
