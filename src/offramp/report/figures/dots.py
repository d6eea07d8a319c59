"""Panels of one number a strategy: the mean as a mark, its interval as a line, the seeds as dots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from offramp.report.figures import series
from offramp.report.figures.chart import (
    WIDTH,
    Json,
    color,
    cutting,
    grid,
    marks,
    number,
    room,
    shape,
    tips,
    word,
)
from offramp.report.figures.chart import panel as layered

STEP = 15  # pixels a strategy


@dataclass(frozen=True, eq=False)
class Panel:
    """frame: columns strategy, seed, value.  axis: what the values are, with their unit.  zero: whether
    the axis must begin at zero.  varies: whether the differences between seeds mean anything."""

    title: str
    axis: str
    frame: pd.DataFrame
    zero: bool = False
    varies: bool = True


def dots(panels: Sequence[Panel], labels: Sequence[str], columns: int = 2) -> Json:
    """A grid of panels. labels: strategies in order, written at the left of each row of panels."""
    width = (WIDTH - room(labels) - 12 * (columns - 1)) // columns
    return grid([_panel(p, labels, width, i % columns == 0) for i, p in enumerate(panels)], columns, 12)


def spread(panels: Sequence[Panel]) -> str:
    """What marks, lines and dots are, as a sentence for the caption."""
    counts = [series.per_strategy(panel.frame) for panel in panels] or [(1, 1)]
    return series.spoken(max(most for most, _ in counts), min(few for _, few in counts), "mean")


def spelled(panel: Panel, labels: Sequence[str]) -> str:
    """The means of a panel in words, for readers who cannot see it."""
    means = panel.frame.groupby("strategy")["value"].mean()
    return ", ".join(f"{label} {means[label]:.3g}" for label in labels if label in means.index)


def read_out(panels: Sequence[Panel], labels: Sequence[str], axis: bool = True) -> str:
    """All panels in words. axis: with what their values are."""
    titles = [f"{p.title}, {p.axis}" if axis else p.title for p in panels]
    return " ".join(f"{t}: {spelled(p, labels)}." for t, p in zip(titles, panels, strict=True))


def _panel(panel: Panel, labels: Sequence[str], width: int, first: bool) -> Json:
    present = panel.frame.dropna(subset=["value"])
    means = series.means(present, ["strategy"])
    axis: Json = {"grid": True, "ticks": False, "labels": first, "domain": False, "labelPadding": 6}
    axis |= cutting(labels)
    y = word("strategy", axis=axis, scale={"domain": list(labels)})
    scale = {"domainMin": 0, "nice": True} if panel.zero else {"zero": False, "padding": 6}
    side = {"scale": scale, "axis": {"grid": False, "tickCount": 4}}
    x = number("value", panel.axis, **side)
    hue = color(labels, None)
    who = ("strategy", "strategy")
    interval = (("n", "seeds"), ("low", "from"), ("high", "to"))
    layers = [
        marks(
            means[["strategy", "value", "n", "low", "high"]],
            {"type": "point", "filled": True, "opacity": 1, "size": 52},
            **{"x": x, "y": y, "color": hue, "shape": shape(labels, None)},
            tooltip=tips(who, ("value", panel.axis), *interval),
        )
    ]
    if panel.varies and means["low"].notna().any():
        rows = means.dropna(subset=["low"])[["strategy", "low", "high"]]
        rule = {"type": "rule", "strokeWidth": 1.4, "clip": True}
        low = number("low", panel.axis, **side)
        layers.append(marks(rows, rule, x=low, x2={"field": "high"}, y=y, color=hue))
    if panel.varies and 1 < present.groupby("strategy")["seed"].nunique().max() <= series.FEW:
        rows = present.sort_values(["strategy", "seed"])[["strategy", "seed", "value"]]
        circle = {"type": "circle", "size": 14, "opacity": 0.55, "yOffset": -5}
        tooltip = tips(who, ("seed", "seed"), ("value", panel.axis))
        layers.append(marks(rows, circle, x=x, y=y, color=hue, tooltip=tooltip))
    return layered(layers, width, STEP * len(labels), panel.title)
