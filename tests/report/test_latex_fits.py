"""Every table fits on the page of an article in one column and of one in two."""

import re
from pathlib import Path

import pandas as pd
import pytest
from handmade import at_random, evidence
from test_renderers import nasty

from offramp.report.claims import claims_table
from offramp.report.model import Column, Table
from offramp.report.render.tables import LINE, LINES, latex
from offramp.report.tables import make
from typeset import needs_latex, trouble

BOTH = ("onecolumn", "twocolumn")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """All tables of made runs, and the paper's claims on them."""
    labels = ("baseline", "joint", "separate", "branch-wise", "two-stage", "joint-two-stage")
    whole = evidence(at_random(labels))
    every = [*make(whole), claims_table(list(whole.judgments.values()))]
    return {table.name: latex(table) for table in every}


def wordy(rows: int = 70, notes: int = 60) -> Table:
    text = "What the paper advises of this strategy where memory is short and images are many. " * 3
    frame = pd.DataFrame({"a": ["joint-two-stage"] * rows, "b": [text] * rows, "c": [text] * rows})
    columns = [Column(key, key) for key in frame]
    return Table(
        "wordy", "more", "Words", text, frame, columns, notes=[f"{n}: {text}" for n in range(notes)]
    )


@needs_latex()
@pytest.mark.parametrize("columns", BOTH)
def test_every_table_fits_on_the_page(texts: dict[str, str], tmp_path: Path, columns: str) -> None:
    assert {"claims", "guidelines", "main-net-images", "tests-one-way-net-images"} <= set(texts)
    odd = {"wordy": latex(wordy()), "nasty": latex(nasty()), "long": latex(nasty(80))}
    assert trouble({**texts, **odd}, tmp_path, columns) == {}


@needs_latex()
def test_what_does_not_fit_would_be_seen(tmp_path: Path) -> None:
    wide = r"\begin{tabular}{l}" + "wide " * 60 + r"\end{tabular}"
    tall = r"\begin{table}" + r"line\par " * 90 + r"\end{table}"
    overfull = trouble({"wide": wide, "fits": "text", "tall": tall}, tmp_path, "twocolumn")
    assert list(overfull) == ["wide", "tall"]
    assert "Overfull" in overfull["wide"][0] and "Float too large" in overfull["tall"][0]


def test_a_column_of_words_that_breaks_alone_breaks_no_short_text(texts: dict[str, str]) -> None:
    """Sizes are those of characters: as many as the longest text that is not wordy."""
    for name in ("tests-net-images", "tests-one-way-net-images", "anova-costs"):
        (share,) = set(re.findall(r"p\{([\d.]+)\\linewidth\}", texts[name]))
        assert float(share) * LINE == pytest.approx(len("Validation cross-entropy"), abs=0.1)
    assert len(set(re.findall(r"p\{([\d.]+)\\linewidth\}", texts["order-costs"]))) > 1


def test_no_float_has_more_lines_than_a_page() -> None:
    """Without any LaTeX: rows of words count as the lines that they take."""
    floats = latex(wordy()).split(r"\begin{table")[1:]
    rows = [part.count(r"\\" + "\n") - 1 for part in floats if "tabular" in part]
    assert sum(rows) == 70 and max(rows) < LINES / 4
    assert len(set(re.findall(r"\\label\{(.*?)\}", latex(wordy())))) == 1
