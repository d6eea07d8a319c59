"""Reliability diagrams, and how often exits agree. On test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from offramp.policy.quality import BINS
from offramp.report.colors import EXIT_COLORS
from offramp.report.figures import chart, series
from offramp.report.figures.chart import (
    GRAY,
    WIDTH,
    Json,
    figure,
    grid,
    marks,
    number,
    panel,
)
from offramp.report.model import Figure
from offramp.report.runs import Runs

SHADE = 0.8  # opacity at 100 %: text on it stays legible, in light and in dark
FEWEST = 10  # images in a bin over all seeds: fewer say nothing


def reliability(runs: Runs) -> list[Figure]:
    """Accuracy against confidence in bins, a panel for each exit."""
    bins = reliability_bins(runs)
    if bins.empty:
        return []
    labels = runs.evidence.among(bins["strategy"])
    exits = sorted(int(k) for k in bins["exit"].unique())
    panels = [_reliability(bins[bins["exit"] == k], labels, f"exit {k}") for k in exits]
    caption = (
        f"Share of right answers among test {runs.noun}s of similar confidence, {runs.where}: {BINS} "
        f"bins, {runs.noun}s of {_seeds(runs)} pooled, without bins of fewer than {FEWEST}. On the gray "
        "diagonal confidence equals accuracy; below it an exit is overconfident."
    )
    alt = _alt(bins, labels)
    return figure(runs, "reliability", "more", "Reliability", caption, alt, grid(panels, 2))


def reliability_bins(runs: Runs) -> pd.DataFrame:
    """Columns strategy, exit, confidence (mean of the bin, %), value (accuracy, %), images."""
    rows = []
    for strategy in runs.strategies:
        summed: dict[int, Any] = {}
        for trial in runs.of(strategy):
            for i, exit in enumerate(trial.exits):
                summed[exit] = summed.get(exit, 0) + runs.evidence.outcomes[trial.id].bins[i]
        rows += [
            (strategy, exit, 100 * sure / images, 100 * right / images, int(images))
            for exit, bins in sorted(summed.items())
            for images, sure, right in bins
            if images >= FEWEST
        ]
    return pd.DataFrame(rows, columns=["strategy", "exit", "confidence", "value", "images"])


def agreement(runs: Runs) -> list[Figure]:
    """How often two exits give one answer, a matrix for each strategy."""
    frames = {s: agreement_matrix(runs, s) for s in runs.strategies}
    frames = {s: frame for s, frame in frames.items() if len(frame)}
    if not frames:
        return []
    spelled = ", ".join(f"{s} {frame['value'].min():.0f} %" for s, frame in frames.items())
    caption = (
        f"Share of test {runs.noun}s, in percent, on which two exits give the same answer, right or "
        f"wrong, {runs.where}. Means over {_seeds(runs)}."
    )
    alt = f"A matrix of exits for each strategy. The least agreement of any two exits: {spelled}."
    panels = grid([_matrix(frame, chart.cut(s)) for s, frame in frames.items()], 3)
    return figure(runs, "agreement", "more", "Agreement of exits", caption, alt, panels)


def agreement_matrix(runs: Runs, strategy: str) -> pd.DataFrame:
    """Columns exit, other, value (%), for each pair of exits, each once."""
    trials = runs.of(strategy)
    exits = trials[0].exits
    matrices = [runs.evidence.outcomes[t.id].agreement for t in trials if t.exits == exits]
    mean = np.mean(matrices, axis=0)
    rows = [(exits[i], exits[k], 100 * mean[i, k]) for i in range(len(exits)) for k in range(i)]
    return pd.DataFrame(rows, columns=["exit", "other", "value"])


def _seeds(runs: Runs) -> str:
    return series.counted(*series.per_strategy(runs.by_trial(lambda t: t.seed)))


def _reliability(bins: pd.DataFrame, labels: list[str], title: str) -> Json:
    scale = {"domain": [0, 100]}
    x = number("confidence", "confidence, %", scale=scale, axis={"tickCount": 5, "grid": False})
    y = number("value", "accuracy, %", scale=scale, axis={"tickCount": 5})
    tooltip = (("confidence", "confidence, %"), ("value", "accuracy, %"), ("images", "images"))
    lines = marks(
        bins[["strategy", "confidence", "value", "images"]],
        {"type": "line", "strokeWidth": 1.4, "point": {"size": 10}},
        **{"x": x, "y": y, "color": chart.color(labels, "stroke"), "strokeDash": chart.dash(labels)},
        tooltip=chart.tips(("strategy", "strategy"), *tooltip),
    )
    diagonal = marks(
        pd.DataFrame({"confidence": [0, 100], "value": [0, 100]}),
        {"type": "line", "stroke": GRAY, "opacity": 0.35, "strokeWidth": 5},
        **{"x": x, "y": y},
    )
    side = (WIDTH - 96) // 2
    visible = bins[["strategy", "confidence", "value", "images"]]
    return panel(
        [lines, diagonal], side, side, title, chart.hidden_text("one line", chart.coinciding(visible))
    )


def _matrix(frame: pd.DataFrame, title: str) -> Json:
    axis = {"grid": False, "ticks": False, "domain": False, "labelAngle": 0}
    place = {"x": chart.rank("other", "exit", axis=axis), "y": chart.rank("exit", axis=axis)}
    # A scale of its own for each half would hide that 95 % is much: the same one everywhere, from 0.
    # Of the strength and not of the color, which on a page is two: nothing lies between pairs of colors.
    shade = {"domain": [0, 100], "range": [0, SHADE]}
    depth = number("value", scale=shade, legend=None)
    cells = marks(frame, {"type": "rect", "color": EXIT_COLORS[1]}, **place, opacity=depth)
    text = {"field": "value", "type": "quantitative", "format": ".0f"}
    return panel(
        [cells, marks(frame, {"type": "text"}, **place, text=text)], (WIDTH - 92) // 3, 72, title
    )


def _alt(bins: pd.DataFrame, labels: list[str]) -> str:
    gaps = []
    for label in labels:
        mine = bins[(bins["strategy"] == label) & (bins["exit"] == bins["exit"].max())]
        if len(mine):
            gap = np.average(mine["confidence"] - mine["value"], weights=mine["images"])
            gaps.append(f"{label} {gap:+.1f}")
    return (
        "Line charts of accuracy against confidence, one for each exit. At the last exit confidence "
        f"exceeds accuracy by, in points: {', '.join(gaps)}."
    )
