"""Values as words: one text for every cell."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from offramp.analysis.stats.pairwise import FLOOR
from offramp.report.model import Column, Table
from offramp.report.render.cells import layout, write


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (Column("x", "x", "number", 2), 1.005, "1.00"),
        (Column("x", "x", "number", 2), -0.5, "−0.50"),
        (Column("x", "x", "number", 2), -0.0, "0.00"),
        (Column("x", "x", "number", 2), 0.0004, "4.00e−04"),
        (Column("x", "x", "number", 2), 2.16e9, "2.16e+09"),
        (Column("x", "x", "percent", 1), 0.5432, "54.3"),
        (Column("x", "x", "percent", 1), -1e-17, "0.0"),
        (Column("x", "x", "percent", 1), -0.0051, "−0.5"),
        (Column("x", "x", "seconds", 1), -0.01, "0.0"),
        (Column("x", "x", "integer"), 12.0, "12"),
        (Column("x", "x", "p"), 0.0344, "0.034"),
        (Column("x", "x", "p"), 4.64e-96, "4.64e-96"),
        (Column("x", "x", "p"), FLOOR, "< 1e-12"),
        (Column("x", "x", "p"), 0.0, "< 1e-300"),
        (Column("x", "x", "si", 3), 240e3, "240 k"),
        (Column("x", "x", "si", 3), 999_900.0, "1 M"),
        (Column("x", "x", "text"), 3, "3"),
        (Column("x", "x", "number"), math.nan, "–"),
        (Column("x", "x", "number"), math.inf, "–"),
        (Column("x", "x", "number"), pd.NA, "–"),
        (Column("x", "x", "number"), None, "–"),
        (Column("x", "x", "number"), "estimated, not tested", "estimated, not tested"),
    ],
)
def test_one_value(column: Column, value: object, expected: str) -> None:
    assert write(column, value) == expected


def test_deviation_follows_where_there_is_one() -> None:
    column = Column("x", "x", "percent", 1, spread="sd")
    assert write(column, 0.5432, 0.0021) == "54.3 ±0.2"
    assert write(Column("x", "x", "number", 0, spread="sd"), 8.0, 0.452) == "8 ±0.5"
    assert write(Column("x", "x", "number", 0, spread="sd"), 8.0, 0.0) == "8 ±0"
    assert write(column, 0.5432, math.nan) == "54.3"
    assert write(column, math.nan, 0.1) == "–"


def table_of(frame: pd.DataFrame, *columns: Column, **more: object) -> Table:
    return Table("t", "more", "A title", "A caption.", frame, columns, **more)  # type: ignore[arg-type]


def test_seconds_share_the_unit_of_the_largest() -> None:
    frame = pd.DataFrame({"t": [30.0, 600.0, math.nan]})
    actual = layout(table_of(frame, Column("t", "time", "seconds", 1)))
    assert actual.titles == ("time, min",)
    assert [row[0].text for row in actual.rows] == ["0.5", "10.0", "–"]
    assert layout(table_of(frame[:1], Column("t", "time", "seconds", 1))).titles == ("time, s",)


def test_marks_stand_at_their_cells() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]}, index=["x", "y", "z"])
    table = table_of(
        frame, Column("a", "a", "number"), best=frozenset({("z", "a")}), alike=frozenset({("y", "a")})
    )
    actual = layout(table)
    assert [row[0].mark for row in actual.rows] == ["", "alike", "best"]
    assert actual.legend("Bold") == " Bold: the best. ≈: not significantly different from it."
    assert layout(table_of(frame, Column("a", "a", "number"))).legend("Bold") == ""
