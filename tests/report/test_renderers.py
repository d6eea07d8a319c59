"""Markdown, LaTeX and CSV of a table with everything that could break them."""

import io
import math
import re

import pandas as pd
import pytest

from offramp.analysis.stats.pairwise import FLOOR
from offramp.escape import markdown as markdown_escape
from offramp.report.model import Column, Table
from offramp.report.render.cells import layout, write
from offramp.report.render.tables import LINES, csv, latex, markdown
from offramp.report.render.tables import latex_text as latex_escape

NASTY = "my_net*[1]|50 % & {#1} $x$ ~^\\ <b> `c`"


def nasty(rows: int = 3) -> Table:
    names = [NASTY, "joint", "[two-stage", *(f"row {i}" for i in range(rows - 3))]
    frame = pd.DataFrame(
        {
            "name": names,
            "value": [0.1 + 0.2, math.nan, 0.5, *([0.25] * (rows - 3))],
            "sd": [0.01, math.nan, math.nan, *([0.0] * (rows - 3))],
            "p": [4.64e-96, 0.04, 1e-12, *([0.5] * (rows - 3))],
            "order": ["J >> D > B ≈ S = T", "estimated, not tested: η², ω², ±, ×, τ, “x” – y", "–"]
            + ["J"] * (rows - 3),
        }
    )
    value = Column("value", "accuracy, %", "percent", 1, "higher", "sd")
    columns = (Column("name", "strategy"), value, Column("p", "p", "p"), Column("order", "order"))
    more = {"best": frozenset({(2, "value")}), "alike": frozenset({(0, "value")}), "paper": "Table 1"}
    title, caption, notes = f"Title {NASTY}", f"Caption {NASTY}.", (f"Note {NASTY}.",)
    return Table("nasty", "more", title, caption, frame, columns, notes=notes, **more)


def cells(line: str) -> list[str]:
    """Cells of a line of Markdown: bars that a backslash precedes separate nothing."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_has_as_many_cells_in_every_line() -> None:
    lines = [line for line in markdown(nasty()).splitlines() if line.startswith("|")]
    assert len(lines) == 5
    assert {len(cells(line)) for line in lines} == {4}
    assert len({len(line) for line in lines}) == 1  # padded
    assert [rule.strip("-") for rule in cells(lines[1])] == [":", ":", ":", ":"]
    assert cells(lines[1])[0].startswith(":") and cells(lines[1])[1].endswith(":")
    assert cells(lines[4])[1] == "**50.0**"
    assert cells(lines[2])[1] == "30.0 ±1.0 ≈"


def test_markdown_escapes_what_would_be_markup() -> None:
    text = markdown_escape(NASTY)
    for sign in "*[]|$<`_":
        assert not re.search(rf"(?<!\\){re.escape(sign)}", text.replace("\\\\", "")), sign
    assert markdown_escape("a\nb") == "a b"
    assert markdown_escape("# title") == "\\# title"
    assert markdown_escape("p < 0.05, ~5 s, $1") == "p < 0.05, ~5 s, $1"  # nothing to escape
    assert markdown_escape("~5 s and ~6 s") == "\\~5 s and \\~6 s"


def test_latex_escapes_every_special_sign() -> None:
    assert latex_escape("a_b & 5 % #1 {x} $y$") == r"a\_b \& 5 \% \#1 \{x\} \$y\$"
    assert latex_escape("~^\\") == r"\textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert latex_escape("J >> D > B ≈ S") == r"J $\gg$ D $>$ B $\approx$ S"
    assert latex_escape("run --until-decided – a-b") == "run -{}-until-decided -- a-b"
    assert latex_escape("4.64e-96") == r"$4.64\times10^{-96}$"
    assert latex_escape("< 1e-12") == r"$<$ $1\times10^{-12}$"
    assert latex_escape("ab551e9") == "ab551e9"  # a key is no number
    assert latex_escape("η² = 0.5 ±0.1") == r"$\eta^2$ = 0.5 $\pm$0.1"
    assert latex_escape("gated λ=0.3, β=1, Δ") == r"gated $\lambda$=0.3, $\beta$=1, $\Delta$"


@pytest.mark.parametrize("rows", [3, 80])
def test_latex_is_balanced(rows: int) -> None:
    text = latex(nasty(rows))
    bare = re.sub(r"\\[{}$&%#_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert text.isascii()
    begun = re.findall(r"\\(begin|end)\{(\w+)\}", text)
    stack: list[str] = []
    for what, name in begun:
        if what == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    assert text.count(r" \\") >= rows + 1
    assert text.count(r"\begin{tabular}") == (1 if rows <= LINES else 3)
    assert r"\label{tab:nasty}" in text
    body = [line for line in bare.splitlines() if line.endswith(r"\\") and "caption" not in line]
    assert {line.count("&") for line in body} == {3}


def test_csv_keeps_every_digit() -> None:
    text = csv(nasty())
    frame = pd.read_csv(io.StringIO(text), converters={"value": str, "p": str})  # pandas may round
    assert list(frame.columns) == ["name", "value", "value_mark", "sd", "p", "order"]
    assert float(frame["value"][0]) == 0.1 + 0.2
    assert float(frame["p"][0]) == 4.64e-96
    assert frame["name"][0] == NASTY
    assert list(frame["value_mark"].fillna("")) == ["alike", "", "best"]
    assert str(frame["value"][1]) in ("", "nan")
    assert text.splitlines()[0] == "name,value,value_mark,sd,p,order"


# Values as words: one text for every cell


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
    # Too small for the column's digits, and so is its spread: both are scientific.
    assert write(Column("x", "x", "number", 3, spread="sd"), 5.68e-5, 1.2e-5) == "5.68e−05 ±1.20e−05"
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
