"""Panels of one number a strategy: the mean as a mark, its interval as a line, the seeds as dots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from offramp.report import series
from offramp.report.figures.chart import WIDTH, color, inline, shape

STEP = 15  # pixels a strategy
LETTER = 5.6  # pixels a letter of a label


@dataclass(frozen=True, eq=False)
class Panel:
    """frame: columns strategy, seed, value.  axis: what the values are, with their unit.  zero: whether
    the axis must begin at zero.  varies: whether the differences between seeds mean anything."""

    title: str
    axis: str
    frame: pd.DataFrame
    zero: bool = False
    varies: bool = True


def dots(panels: Sequence[Panel], labels: Sequence[str], columns: int = 2) -> Any:
    """A grid of panels. labels: strategies in order, written at the left of each row of panels."""
    room = int(max((len(label) for label in labels), default=1) * LETTER) + 12
    width = (WIDTH - room - 12 * (columns - 1)) // columns
    rows = []
    for start in range(0, len(panels), columns):
        row = panels[start : start + columns]
        rows.append(
            alt.hconcat(*(_panel(p, labels, width, i == 0) for i, p in enumerate(row)), spacing=12)
        )
    return alt.vconcat(*rows, spacing=10) if len(rows) > 1 else rows[0]


def seeds_of(panels: Sequence[Panel]) -> int:
    """The most seeds that any mark of the panels has."""
    return max((int(p.frame.groupby("strategy")["seed"].nunique().max()) for p in panels), default=0)


def spelled(panel: Panel, labels: Sequence[str], digits: int = 3) -> str:
    """The means of a panel in words, for readers who cannot see it."""
    means = panel.frame.groupby("strategy")["value"].mean()
    return ", ".join(f"{label} {means[label]:.{digits}g}" for label in labels if label in means.index)


def _panel(panel: Panel, labels: Sequence[str], width: int, first: bool) -> Any:
    found = panel.frame.dropna(subset=["value"])
    means = series.means(found, ["strategy"])
    axis = alt.Axis(grid=True, ticks=False, labels=first, domain=False, labelPadding=6)
    y = alt.Y("strategy:N", title=None, axis=axis, scale=alt.Scale(domain=list(labels)))
    scale = alt.Scale(domainMin=0, nice=True) if panel.zero else alt.Scale(zero=False, padding=6)
    x = alt.X("value:Q", title=panel.axis, scale=scale, axis=alt.Axis(grid=False, tickCount=4))
    hue = color(labels, legend=None)
    tip = ["strategy:N", alt.Tooltip("value:Q", title=panel.axis), "n:Q", "low:Q", "high:Q"]
    layers: list[Any] = [
        alt.Chart(inline(means[["strategy", "value", "n", "low", "high"]]))
        .mark_point(filled=True, opacity=1, size=52)
        .encode(x=x, y=y, color=hue, shape=shape(labels, legend=None), tooltip=tip)
    ]
    if panel.varies and means["low"].notna().any():
        whiskers = means.dropna(subset=["low"])[["strategy", "low", "high"]]
        layers.append(
            alt.Chart(inline(whiskers))
            .mark_rule(strokeWidth=1.4, clip=True)
            .encode(x=alt.X("low:Q", title=panel.axis), x2="high:Q", y=y, color=hue)
        )
    if panel.varies and 1 < found.groupby("strategy")["seed"].nunique().max() <= series.FEW:
        single = found.sort_values(["strategy", "seed"])[["strategy", "seed", "value"]]
        layers.append(
            alt.Chart(inline(single))
            .mark_circle(size=14, opacity=0.55, yOffset=-5)
            .encode(x=x, y=y, color=hue, tooltip=["strategy:N", "seed:O", "value:Q"])
        )
    return alt.layer(*layers).properties(width=width, height=STEP * len(labels), title=panel.title)
