"""What a policy does with images that are not like those it was calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from offramp.report.figures import chart
from offramp.report.figures.chart import Json, marks, number, rank, word
from offramp.report.model import Figure

if TYPE_CHECKING:
    from offramp.policy.stress import StressRow

HEIGHT, BAR = 150, 17


def stress_figure(rows: Sequence[StressRow], exits: Sequence[int], name: str) -> Figure:
    """Accuracy and compute by the strength of each corruption, and where images of each kind leave.

    Args:
        rows: Of all kinds.
        exits: Numbers of the policy's exits.
        name: Of the trial.
    """
    worse = [row for row in rows if row.kind == "corruption"]
    (plain,) = (row for row in rows if row.kind == "test")
    strongest = max((row.strength for row in worse), default=0)
    caption = (
        "Above: accuracy and compute by strength of corruption, from images as they are (0) on. Below: "
        f"where images leave; of corruptions at strength {strongest}."
    )
    dearest = max(rows, key=lambda row: row.compute.mean)
    alt = (
        f"Images as they are take {100 * plain.compute.mean:.0f} % of the plain network's MACs; most "
        f"take {dearest.name}, {100 * dearest.compute.mean:.0f} %."
    )
    wide = (chart.WIDTH - 90) // 2
    above = [
        _lines(plain, worse, "accuracy", "accuracy, %", wide),
        _lines(plain, worse, "compute", "MACs, % of plain", wide),
    ]
    shown_rows = [row for row in rows if row.kind != "corruption" or row.strength == strongest]
    apart = {"resolve": {"scale": dict.fromkeys(("color", "strokeDash"), "independent")}}
    whole = {**chart.grid([chart.grid(above, 2), _bars(shown_rows, exits)], 1), **apart}
    return Figure("stress", "more", Path(name).name, caption, alt, chart.spec(whole))


def _lines(plain: StressRow, worse: Sequence[StressRow], what: str, title: str, width: float) -> Json:
    """One value by strength, a line for each corruption."""
    names = list(dict.fromkeys(row.name for row in worse))
    values = [
        (name, row.strength, 100 * value)
        for name in names
        for row in (plain, *worse)
        if row.name in (name, plain.name) and (value := _value(row, what)) is not None
    ]
    frame = pd.DataFrame(values, columns=["corruption", "strength", "value"])
    hue, dashes = (
        {**each, "field": "corruption"} for each in (chart.color(names, "stroke"), chart.dash(names))
    )
    line = marks(
        frame,
        {"type": "line", "point": {"size": 14}},
        x=rank("strength", "strength", axis={"labelAngle": 0}),
        y=number("value", title, scale={"zero": False}),
        color=hue,
        strokeDash=dashes,
        tooltip=[word("corruption"), number("strength"), number("value", title)],
    )
    return chart.panel([line], width, HEIGHT)


def _value(row: StressRow, what: str) -> float | None:
    if what == "compute":
        return row.compute.mean
    return None if row.accuracy is None else row.accuracy.value


def _bars(rows: Sequence[StressRow], exits: Sequence[int]) -> Json:
    """The share of images that leaves at each exit."""
    labels = [row.name for row in rows]
    values = [
        (row.name, exit, 100 * share)
        for row in rows
        for exit, share in zip(exits, row.shares, strict=True)
    ]
    frame = pd.DataFrame(values, columns=["images", "exit", "share"])
    bars = marks(
        frame,
        {"type": "bar", "height": BAR - 4},
        x=number("share", "images that leave, %", scale={"domain": [0, 100]}),
        y=word("images", sort=labels, axis={"grid": False, "ticks": False}),
        color=chart.exit_color(exits),
        order={"field": "exit", "type": "quantitative"},
        tooltip=[word("images"), number("exit"), number("share", "share, %")],
    )
    return chart.panel([bars], chart.WIDTH - chart.room(labels), (BAR + 2) * len(labels))
