"""What a policy does with images that are not like those it was calibrated on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from offramp.report.figures import chart
from offramp.report.figures.chart import Json, marks, number, rank, word
from offramp.report.model import Figure

if TYPE_CHECKING:
    from offramp.policy.stress import StressRow


def stress_figure(rows: Sequence[StressRow], plain_macs: int, name: str) -> Figure:
    """Accuracy and compute by the strength of each corruption, and where images of each kind leave.
    plain_macs: of the network without early exits; name: of the trial."""
    strongest = max((row.strength for row in rows), default=0)
    caption = (
        "Above: accuracy and compute by strength of corruption, from images as they are (0) on. Below: "
        f"where images leave; of corruptions at strength {strongest}."
    )
    dearest = max(rows, key=lambda row: row.tested.macs.mean)
    cost = 100 * dearest.tested.macs.mean / plain_macs
    alt = f"Most compute is taken by {dearest.title}: {cost:.0f} % of the plain network's MACs."
    lines = [
        _lines(rows, "accuracy, %", lambda row: row.tested.policy.value),
        _lines(rows, "MACs, % of plain", lambda row: row.tested.macs.mean / plain_macs),
    ]
    bars = _bars([row for row in rows if row.kind != "corruption" or row.strength == strongest])
    apart = {"resolve": {"scale": dict.fromkeys(("color", "strokeDash"), "independent")}}
    whole = {**chart.grid([chart.grid(lines, 2), bars], 1), **apart}
    return Figure("stress", "more", name, caption, alt, chart.spec(whole))


def _lines(rows: Sequence[StressRow], title: str, value: Callable[[StressRow], float]) -> Json:
    """A share by strength, a line for each corruption."""
    names = list(dict.fromkeys(row.name for row in rows if row.kind == "corruption"))
    values = [
        (name, row.strength, 100 * value(row))
        for name in names
        for row in rows
        if row.kind == "test" or (row.kind == "corruption" and row.name == name)
    ]
    line = marks(
        pd.DataFrame(values, columns=["corruption", "strength", "value"]),
        {"type": "line", "point": {"size": 14}},
        x=rank("strength", "strength", axis={"labelAngle": 0}),
        y=number("value", title, scale={"zero": False}),
        color={**chart.color(names, "stroke"), "field": "corruption"},
        strokeDash={**chart.dash(names), "field": "corruption"},
        tooltip=[word("corruption"), number("strength"), number("value", title)],
    )
    return chart.panel([line], (chart.WIDTH - 90) // 2, 150)


def _bars(rows: Sequence[StressRow]) -> Json:
    """The share of images that leaves at each exit."""
    labels = [row.name for row in rows]
    values = [(row.name, exit.exit, 100 * exit.share) for row in rows for exit in row.tested.exits]
    bars = marks(
        pd.DataFrame(values, columns=["images", "exit", "share"]),
        {"type": "bar", "height": 13},
        x=number("share", "images that leave, %", scale={"domain": [0, 100]}),
        y=word("images", sort=labels, axis={"grid": False, "ticks": False}),
        color=chart.exit_color(exit.exit for exit in rows[0].tested.exits),
        order={"field": "exit", "type": "quantitative"},
        tooltip=[word("images"), number("exit"), number("share", "share, %")],
    )
    return chart.panel([bars], chart.WIDTH - chart.room(labels), 19 * len(labels))
