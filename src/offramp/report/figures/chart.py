"""What every chart shares: data in a compact form, and scales by strategy and by exit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from offramp.report.colors import styles

WIDTH = 390  # of a whole chart, in pixels: a phone's, and a column's on paper
DIGITS = 4  # significant ones, in the data of charts
# By exit: from light to dark, so that depth reads as ink, and the reverse on a dark page.
EXIT_COLORS = ("#9ec5e8", "#5a94cc", "#2c649f", "#123661", "#7fa39a", "#4f7a70", "#2a5048", "#11302a")
EXIT_DARK = ("#2f5d8c", "#4f86bd", "#86b3e0", "#cfe4f8", "#2e5a50", "#4f8073", "#82b0a4", "#c5e3db")


def inline(frame: pd.DataFrame) -> alt.InlineData:
    """A frame as CSV inside the specification: a third of the size of JSON's records. Numbers have
    DIGITS significant digits; a missing one is an empty field, which is drawn nowhere."""
    texts = pd.DataFrame({name: _texts(frame[name]) for name in frame.columns})
    parse = {
        str(name): "number" if pd.api.types.is_numeric_dtype(frame[name]) else "string"
        for name in frame.columns
    }
    return alt.InlineData(
        values=texts.to_csv(index=False, lineterminator="\n"),
        format=alt.CsvDataFormat(type="csv", parse=parse),
    )


def _texts(column: pd.Series) -> list[str]:
    if not pd.api.types.is_float_dtype(column):
        return ["" if pd.isna(value) else str(value) for value in column]
    return ["" if pd.isna(value) else number(value) for value in column.astype(float)]


def number(value: float) -> str:
    """`value` with DIGITS significant digits, in the fewest characters."""
    return format(value, f".{DIGITS}g").replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most so many ticks of a logarithmic axis, at 1, 2 and 5 times powers of ten where they fit."""
    if not 0 < low < high < math.inf:
        return []
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        values = [float(f"{k * 10.0**d:.3g}") for d in decades for k in steps]
        values = [value for value in values if low <= value <= high]
        if len(values) <= most:
            break
    return values


def color(labels: Iterable[str], legend: str | None = "circle") -> alt.Color:
    """Strategies by color. legend: the symbol in it, such as `stroke`; None for no legend."""
    found = styles(labels)
    scale = alt.Scale(domain=list(found), range=[style.color for style in found.values()])
    return alt.Color("strategy:N", title=None, scale=scale, legend=_legend(found, legend))


def fill(labels: Iterable[str]) -> alt.Fill:
    """The same colors for bands, outside the legend."""
    found = styles(labels)
    scale = alt.Scale(domain=list(found), range=[style.color for style in found.values()])
    return alt.Fill("strategy:N", scale=scale, legend=None)


def dash(labels: Iterable[str], legend: str | None = "stroke") -> alt.StrokeDash:
    """Strategies by dash; joins the legend of `color`."""
    found = styles(labels)
    dashes = [list(style.dash) or [1, 0] for style in found.values()]
    scale = alt.Scale(domain=list(found), range=dashes)
    return alt.StrokeDash("strategy:N", title=None, scale=scale, legend=_legend(found, legend))


def shape(labels: Iterable[str], legend: str | None = "circle") -> alt.Shape:
    """Strategies by shape; joins the legend of `color`."""
    found = styles(labels)
    scale = alt.Scale(domain=list(found), range=[style.shape for style in found.values()])
    return alt.Shape("strategy:N", title=None, scale=scale, legend=_legend(found, legend))


def exit_color(exits: Iterable[int]) -> alt.Color:
    """Exits by color, the deeper the darker."""
    numbers = sorted(set(exits))
    scale = alt.Scale(domain=numbers, range=[EXIT_COLORS[(k - 1) % len(EXIT_COLORS)] for k in numbers])
    legend = alt.Legend(symbolType="square", direction="horizontal")
    return alt.Color("exit:O", title="exit", scale=scale, legend=legend)


def _legend(found: Mapping[str, Any], symbol: str | None) -> alt.Legend | None:
    """In as many rows as it takes, above the chart, where it hides no data."""
    if symbol is None:
        return None
    longest = max(map(len, found), default=1)
    wide = symbol == "stroke"
    room = (WIDTH + 10) // (longest * 6 + (44 if wide else 30))  # 6 px a letter at 11 px, and the symbol
    columns = max(1, min(len(found), room))
    if wide:
        return alt.Legend(columns=columns, symbolSize=300, symbolType=symbol)
    return alt.Legend(columns=columns, symbolSize=70, symbolStrokeWidth=0)


def strategies_down(labels: Sequence[str], field: str = "strategy") -> alt.Y:
    """Strategies one below the other, in the order of `labels`."""
    return alt.Y(f"{field}:N", sort=list(labels), title=None, axis=alt.Axis(grid=False, ticks=False))


def spec(chart: Any) -> dict[str, Any]:
    """The specification of a chart, without a theme."""
    made: dict[str, Any] = chart.to_dict(validate=False)
    made.pop("config", None)
    return made
