"""What every chart shares: Vega-Lite in JSON, data in a compact form, scales by strategy and by exit.

Charts are written as the JSON that they are: with Altair's objects, whose every composition copies its
parts, a report of eight networks took most of a minute longer. The tests hold each of them against
Altair's schema.
"""

from __future__ import annotations

import hashlib
import math
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from offramp.report.colors import EXIT_COLORS, Style, styles
from offramp.report.model import Figure, Question, slug
from offramp.units import first_few

if TYPE_CHECKING:
    from offramp.analysis.measures import Measure
    from offramp.report.runs import Runs

Json = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.4.1.json"
WIDTH = 350  # of a whole chart, in pixels: a phone's without its margins, and a column's on paper
LETTER = 5.5  # pixels a letter of a label takes, at 11 px
BESIDE, ABOVE = 26, 32  # letters of a label that an axis and a legend show, within the theme's limits
LONG, HALF = 12, 25  # labels from which on a legend has two columns, and letters in each
DIGITS = 4  # significant ones, in the data of charts
TICKS = 6  # of a logarithmic axis
GRAY = "#808080"  # for what is no strategy: seen on white and on black


def cut(label: str, most: int = BESIDE) -> str:
    """A label, or so many letters at most of its end, where functions of one file differ.

    Example:
        >>> cut("/home/somebody/mine.py:students", 12)
        '…py:students'
    """
    return label if len(label) <= most else f"…{label[1 - most :]}"


def cutting(labels: Iterable[str], most: int = BESIDE) -> Json:
    """For an axis or a legend: `cut`, where a label needs it."""
    if max(map(len, labels), default=0) <= most:
        return {}
    return {
        "labelExpr": f"length(datum.label) > {most} ? '…' + slice(datum.label, {1 - most}) : datum.label"
    }


def room(labels: Iterable[str]) -> int:
    """Pixels that labels take beside a chart."""
    return int(max((len(cut(label)) for label in labels), default=1) * LETTER) + 12


def number(field: str, title: str | None = None, **more: Any) -> Json:
    """An encoding of numbers. more: scale, axis, legend and the like."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def word(field: str, title: str | None = None, **more: Any) -> Json:
    """An encoding of words."""
    return {"field": field, "type": "nominal", "title": title, **more}


def rank(field: str, title: str | None = None, **more: Any) -> Json:
    """An encoding of things in an order."""
    return {"field": field, "type": "ordinal", "title": title, **more}


def tips(*encodings: tuple[str, str]) -> list[Json]:
    """What shows when pointing at a mark: columns and what they are called; all but `strategy` are
    numbers."""
    return [
        word(field, title) if field in ("strategy", "threshold", "how") else number(field, title)
        for field, title in encodings
    ]


def marks(frame: pd.DataFrame, mark: Json, **encoding: Any) -> Json:
    """One kind of mark for each row of a frame. encoding: by channel, such as x and color."""
    return {"data": inline(frame), "mark": mark, "encoding": encoding}


def panel(layers: Sequence[Json], width: float, height: float, title: str = "", below: str = "") -> Json:
    """Layers over one another. below: what is said below the title, in as many lines as it takes."""
    subtitle = lines(below, width)
    named: Json = (
        {"title": {"text": title, "subtitle": subtitle} if subtitle else title} if title else {}
    )
    return {"layer": list(layers), "width": width, "height": height, **named}


def lines(text: str, width: float) -> list[str]:
    """A text in lines of so many pixels."""
    return textwrap.wrap(text, max(20, int(width / LETTER)), break_on_hyphens=False)


def grid(panels: Sequence[Json], columns: int, spacing: int = 10) -> Json:
    """Panels in rows of so many."""
    rows = [list(panels[i : i + columns]) for i in range(0, len(panels), columns)]
    if len(rows) == 1 and len(rows[0]) == 1:
        return rows[0][0]
    return {"vconcat": [{"hconcat": row, "spacing": spacing} for row in rows], "spacing": spacing}


def inline(frame: pd.DataFrame) -> Json:
    """A frame as CSV inside the specification: a third of the size of JSON's records. Numbers have
    DIGITS significant digits; a missing one is an empty field, which is drawn nowhere."""
    texts = pd.DataFrame({name: _texts(frame[name]) for name in frame.columns})
    numeric = pd.api.types.is_numeric_dtype
    parse = {str(name): "number" if numeric(frame[name]) else "string" for name in frame.columns}
    values = texts.to_csv(index=False, lineterminator="\n")
    return {"values": values, "format": {"type": "csv", "parse": parse}}


def coinciding(frame: pd.DataFrame) -> list[list[str]]:
    """Strategies that are drawn alike, where there are several: each hides the others. frame: what is
    drawn, a column of it the strategy."""
    groups: dict[str, list[str]] = {}
    for strategy, rows in frame.groupby("strategy", sort=False):
        groups.setdefault(inline(rows.drop(columns="strategy"))["values"], []).append(str(strategy))
    return [list(styles(same)) for same in groups.values() if len(same) > 1]


def hidden_text(what: str, groups: Sequence[Sequence[str]]) -> str:
    """What a chart says of strategies that hide each other; nothing where there are none."""
    groups_text = "; ".join(first_few([alike_text(same) for same in groups]))
    return f"{what}: {groups_text}" if groups_text else ""


def alike_text(labels: Iterable[str]) -> str:
    """Labels of one thing, each as a legend cuts it."""
    return " = ".join(cut(label, ABOVE) for label in labels)


def _texts(column: pd.Series) -> list[str]:
    if not pd.api.types.is_float_dtype(column):
        return ["" if pd.isna(value) else str(value) for value in column]
    return [short(value) if math.isfinite(value) else "" for value in column.astype(float)]


def short(value: float) -> str:
    """`value` with DIGITS significant digits, in the fewest characters."""
    return format(value, f".{DIGITS}g").replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: at 1, 2 and 5 times powers of ten, or at fewer of them where these
    would be more than TICKS."""
    if not 0 < low < high < math.inf:
        return []
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        values = [float(f"{k * 10.0**d:.3g}") for d in decades for k in steps]
        values = [value for value in values if low <= value <= high]
        if len(values) <= TICKS:
            break
    return values


@dataclass(frozen=True)
class AxisUnit:
    """What values are divided by, and what is written behind them."""

    factor: float
    name: str


# By the unit of a measure, of values as they are stored: bytes, not MB.
SCALES = {
    "s": (AxisUnit(1e-3, "ms"), AxisUnit(1.0, "s"), AxisUnit(60.0, "min"), AxisUnit(3600.0, "h")),
    "MB": (AxisUnit(1e3, "kB"), AxisUnit(1e6, "MB"), AxisUnit(1e9, "GB")),
    "GMAC": (
        AxisUnit(1e6, "MMAC"),
        AxisUnit(1e9, "GMAC"),
        AxisUnit(1e12, "TMAC"),
        AxisUnit(1e15, "PMAC"),
    ),
    "J": (AxisUnit(1.0, "J"), AxisUnit(1e3, "kJ"), AxisUnit(3.6e6, "kWh")),
    "W": (AxisUnit(1.0, "W"),),
}


def unit(largest: float, name: str) -> AxisUnit:
    """Of the units beside `name`, the largest in which `largest` is 2 or more; the smallest
    where it is in none."""
    fitting = [u for u in SCALES[name] if largest >= 2 * u.factor]
    return fitting[-1] if fitting else SCALES[name][0]


def color(labels: Iterable[str], legend: str | None = "circle") -> Json:
    """Strategies by color.

    Args:
        legend: The symbol in it, such as `stroke`; None for no legend: then beside layers that have
            one give it as `stroke` or `fill`, as Vega-Lite takes one legend a channel.
    """
    return _styled(labels, lambda style: style.color, legend)


def dash(labels: Iterable[str], legend: str | None = "stroke") -> Json:
    """Strategies by dash; joins the legend of `color`."""
    return _styled(labels, lambda style: list(style.dash) or [1, 0], legend)


def shape(labels: Iterable[str], legend: str | None = "circle") -> Json:
    """Strategies by shape; joins the legend of `color`."""
    return _styled(labels, lambda style: style.shape, legend)


def _styled(labels: Iterable[str], attribute: Callable[[Style], Any], legend: str | None) -> Json:
    by_label = styles(labels)
    # Without a legend in the reverse order: Vega-Lite merges the legends of one domain, and warns where
    # one of them is hidden.
    order = list(by_label) if legend else list(by_label)[::-1]
    scale = {"domain": order, "range": [attribute(by_label[label]) for label in order]}
    return word("strategy", scale=scale, legend=legend_of(by_label, legend))


def exit_color(exits: Iterable[int]) -> Json:
    """Exits by color, the deeper the darker within a hue."""
    numbers = sorted(set(exits))
    colors = [EXIT_COLORS[(k - 1) % len(EXIT_COLORS)] for k in numbers]
    legend = {"symbolType": "square", "direction": "horizontal"}
    return rank("exit", "exit", scale={"domain": numbers, "range": colors}, legend=legend)


def legend_of(labels: Collection[str], symbol: str | None) -> Json | None:
    """In as many rows as it takes, above the chart, where it hides no data."""
    if symbol is None:
        return None
    most = min(max(map(len, labels), default=1), int((WIDTH - 40) / LETTER))
    sizes = [HALF, ABOVE] if len(labels) > LONG else [ABOVE]
    differ = (n for n in sizes if len({cut(label, n) for label in labels}) == len({*labels}))
    letters = next(differ, most)
    longest = max((len(cut(label, letters)) for label in labels), default=1)
    wide = symbol == "stroke"
    fit = (WIDTH + 10) // (longest * LETTER + (40 if wide else 26))  # and the symbol
    columns = max(1, min(len(labels), int(fit)))
    layout = {"columns": columns, **cutting(labels, letters)}
    if letters > ABOVE:
        layout["labelLimit"] = WIDTH
    if wide:
        return {**layout, "symbolSize": 300, "symbolType": symbol}
    return {**layout, "symbolSize": 70, "symbolStrokeWidth": 0}


def figure(
    runs: Runs, name: str, question: Question, title: str, caption: str, alt: str, chart: Json
) -> list[Figure]:
    """A figure of these runs, the only one of its family; none where the chart has no data."""
    whole = spec(chart)
    if not whole["datasets"]:
        return []
    return [Figure(runs.name(name), question, title, caption, alt, whole, about=runs.about)]


def named(name: str, measure: Measure) -> str:
    """The name of a figure that can show any measure: that of accuracy is the family's."""
    return name if measure.name == "accuracy-test" else f"{name}-{slug(measure.name)}"


def spec(chart: Json) -> Json:
    """The whole specification of a chart, without a theme: equal data are kept once, by name."""
    datasets: dict[str, str] = {}
    content = _named(chart, datasets)
    return {"$schema": SCHEMA, "datasets": dict(sorted(datasets.items())), **content}


def _named(value: Any, datasets: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_named(child, datasets) for child in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("values"), str):
        name = f"data-{hashlib.sha256(value['values'].encode()).hexdigest()[:12]}"
        datasets[name] = value["values"]
        return {"name": name, "format": value["format"]}
    return {key: _named(child, datasets) for key, child in value.items()}
