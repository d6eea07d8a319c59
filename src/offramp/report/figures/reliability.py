"""Reliability diagrams, and how often exits agree. On test."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from offramp.deploy.quality import BINS
from offramp.report import series
from offramp.report.evidence import Evidence
from offramp.report.figures.chart import WIDTH, color, dash, inline, spec
from offramp.report.figures.naming import about, name, where
from offramp.report.model import Figure

FEWEST = 10  # images in a bin over all seeds: fewer say nothing


def reliability(evidence: Evidence) -> list[Figure]:
    """Accuracy against confidence in bins, a panel for each exit."""
    figures = []
    for model, data in evidence.pairs:
        found = reliability_bins(evidence, model, data)
        here = set(found["strategy"])
        labels = [label for label in evidence.strategies if label in here]
        exits = sorted(int(k) for k in found["exit"].unique())
        panels = [_reliability(found[found["exit"] == k], labels, f"exit {k}") for k in exits]
        rows = [alt.hconcat(*panels[i : i + 2], spacing=10) for i in range(0, len(panels), 2)]
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
                spec=spec(alt.vconcat(*rows, spacing=10)),
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
        rows = [alt.hconcat(*panels[i : i + 3], spacing=10) for i in range(0, len(panels), 3)]
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
                spec=spec(alt.vconcat(*rows, spacing=10).resolve_scale(color="shared")),
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


def _reliability(found: pd.DataFrame, labels: list[str], title: str) -> Any:
    scale = alt.Scale(domain=[0, 100])
    x = alt.X("confidence:Q", title="confidence, %", scale=scale, axis=alt.Axis(tickCount=5, grid=False))
    y = alt.Y("value:Q", title="accuracy, %", scale=scale, axis=alt.Axis(tickCount=5))
    lines = (
        alt.Chart(inline(found[["strategy", "confidence", "value", "images"]]))
        .mark_line(strokeWidth=1.4, point=alt.OverlayMarkDef(size=10))
        .encode(
            x=x,
            y=y,
            color=color(labels, legend="stroke"),
            strokeDash=dash(labels),
            tooltip=["strategy:N", "confidence:Q", "value:Q", "images:Q"],
        )
    )
    ends = pd.DataFrame({"confidence": [0, 100], "value": [0, 100]})
    diagonal = alt.Chart(inline(ends)).mark_line(stroke="#808080", opacity=0.35, strokeWidth=5)
    side = (WIDTH - 100) // 2
    return alt.layer(lines, diagonal.encode(x=x, y=y)).properties(width=side, height=side, title=title)


def _matrix(frame: pd.DataFrame, title: str) -> Any:
    axis = alt.Axis(grid=False, ticks=False, domain=False, labelAngle=0)
    base = alt.Chart(inline(frame)).encode(
        x=alt.X("other:O", title="exit", axis=axis), y=alt.Y("exit:O", title=None, axis=axis)
    )
    # A scale of its own for each half would hide that 95 % is much: the same one everywhere, from 0.
    shade = alt.Scale(domain=[0, 100], range=["#5a94cc20", "#5a94cc"])
    cells = base.mark_rect().encode(color=alt.Color("value:Q", scale=shade, legend=None))
    texts = base.mark_text(fontSize=10).encode(text=alt.Text("value:Q", format=".0f"))
    return alt.layer(cells, texts).properties(width=96, height=72, title=title)


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
