"""A table's values as words: one text for every cell, which all renderers share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, assert_never

from offramp.analysis.stats.pairwise import FLOOR
from offramp.analysis.stats.text import p_text
from offramp.report.model import Column, Table

NONE = "–"  # stands where there is no value
UNITS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))
PREFIXES = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))


@dataclass(frozen=True)
class Cell:
    """What to write, and whether it is the best of its column or not significantly different from it."""

    text: str
    mark: Literal["best", "alike", ""] = ""


@dataclass(frozen=True)
class Layout:
    """A table in words."""

    titles: tuple[str, ...]  # of the columns, units included
    numeric: tuple[bool, ...]  # which columns align right
    rows: tuple[tuple[Cell, ...], ...]  # [rows, columns]

    @property
    def marked(self) -> bool:
        """Whether any cell is."""
        return any(cell.mark for row in self.rows for cell in row)

    def legend(self, best: str) -> str:
        """What marks mean, to follow a caption; empty where there is none. best: how the best look."""
        return f" {best}: the best. ≈: not significantly different from it." if self.marked else ""


def layout(table: Table) -> Layout:
    """Write every cell. A column of seconds gets one unit, that of its largest value, in its title."""
    scales = {c.key: _scale(table, c) for c in table.columns if c.kind == "seconds"}
    titles = tuple(
        f"{c.title}, {scales[c.key][1]}" if c.kind == "seconds" else c.title for c in table.columns
    )
    rows = tuple(
        tuple(_cell(table, label, column, scales) for column in table.columns)
        for label in table.frame.index
    )
    return Layout(titles, tuple(c.kind != "text" for c in table.columns), rows)


def _cell(table: Table, label: Any, column: Column, scales: dict[str, tuple[float, str]]) -> Cell:
    value = table.frame.at[label, column.key]
    spread = None if column.spread is None else table.frame.at[label, column.spread]
    text = write(column, value, spread, scales.get(column.key, (1.0, ""))[0])
    return Cell(text, table.mark(label, column.key))


def write(column: Column, value: Any, spread: Any = None, unit: float = 1.0) -> str:
    """One value in words. Text in a column of numbers, such as `not tested`, is written as it is. unit:
    seconds that a printed unit of time stands for."""
    if isinstance(value, str):
        return value
    if missing(value):
        return NONE
    if column.kind == "text":
        return str(value)
    text = _number(column, float(value), unit)
    if spread is None or missing(spread) or isinstance(spread, str):
        return text
    small = column.kind == "number" and 0 < float(spread) < 0.5 * 10**-column.digits
    if small and "e" not in text:
        return f"{text} ±{float(spread):.{column.digits + 1}f}"  # `8 ±0.5`, never `8 ±4.52e−01`
    return f"{text} ±{_number(column, float(spread), unit)}"


def missing(value: Any) -> bool:
    """None, NaN and pandas' NA. An infinite number counts as missing: it is never a finding."""
    if value is None or isinstance(value, str):
        return value is None
    try:
        return not math.isfinite(value)
    except TypeError:
        return True


def _number(column: Column, value: float, unit: float) -> str:
    match column.kind:
        case "percent":
            text = f"{100 * value:.{column.digits}f}"
        case "integer":
            text = f"{value:.0f}"
        case "seconds":
            text = f"{value / unit:.{column.digits}f}"
        case "p":
            return p_text(value, floored=value == FLOOR)
        case "si":
            text = _si(value, column.digits)
        case "number" | "text":  # a column of text has none: `write` leaves it as it is
            text = _fixed(value, column.digits)
        case _:
            assert_never(column.kind)
    return signed(text)


def signed(text: str) -> str:
    """A number with the sign that print has for minus; a zero has none.

    Example:
        >>> signed("-0.4"), signed("-0.0")
        ('−0.4', '0.0')
    """
    return (text if text.strip("-0.") else text.removeprefix("-")).replace("-", "−")


def _fixed(value: float, digits: int) -> str:
    """Digits after the point; scientific where these would be too many or show nothing."""
    if abs(value) >= 1e7 or (value != 0 and abs(value) < 0.5 * 10**-digits):
        return f"{value:.2e}"
    return f"{value:.{digits}f}"


def _si(value: float, digits: int) -> str:
    for size, name in PREFIXES:
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.{digits}g}{name}"
    return f"{value:.{digits}g}"


def _scale(table: Table, column: Column) -> tuple[float, str]:
    numbers = [abs(float(v)) for v in table.frame[column.key] if not (isinstance(v, str) or missing(v))]
    largest = max(numbers, default=0.0)
    return next((u for u in UNITS if largest >= 10 * u[0]), UNITS[-1])
