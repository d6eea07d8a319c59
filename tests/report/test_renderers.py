"""Markdown, LaTeX and CSV of a table with everything that could break them."""

from __future__ import annotations

import io
import math
import re

import pandas as pd
import pytest

from offramp.escape import markdown as markdown_escape
from offramp.report.model import Column, Table
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
