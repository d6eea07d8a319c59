"""What a report is made of: figures and tables, each with the question that it answers, and contents."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

# The order in which a reader finds them. `answer` is the main table; `more` is what the paper lacks.
Question = Literal["answer", "compute", "rq1", "rq2", "rq3", "more", "how"]


def slug(*words: object) -> str:
    """A file's name made of words: lower case letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(str(w) for w in words if w != "").lower()).strip("-")


@dataclass(frozen=True, eq=False)
class Figure:
    """A chart and what to say of it.

    Attributes:
        name: Of its files, [a-z0-9-]+.
        title: a few words.
        caption: Whole sentences: what is drawn, the interval, the number of seeds, and the
            direction that is better.
        alt: What a reader who cannot see it should know.
        spec: Vega-Lite in JSON, data inline.
        paper: The paper's figures that it answers to, such as `Figs. 8, 18`, or empty.
        about: The values of `model`, `data` and `exit` that it shows one of; what it does not name
            it shows all of.
    """

    name: str
    question: Question
    title: str
    caption: str
    alt: str
    spec: Mapping[str, Any]
    paper: str = ""
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: Of the frame.
        title: With its unit.
        kind: How values are written (`text` as they are).
        digits: After the point, or significant ones for `p` and `si`.
        better: The direction that is good, for the mark of the best.
        spread: The frame's column with the deviation to print after ±.
    """

    key: str
    title: str
    kind: Literal["text", "number", "percent", "p", "seconds", "si", "integer"] = "text"
    digits: int = 2
    better: Literal["higher", "lower"] | None = None
    spread: str | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """Values and what to say of them; name, title, caption, paper and about as of a Figure.

    Attributes:
        frame: Unformatted values, NaN where there is none.
        best, alike: (row label of the frame's index, column key) of cells with the best value, and
            of those not significantly different from it.
        notes: One a line below the table, such as why a cell is empty.
    """

    name: str
    question: Question
    title: str
    caption: str
    frame: pd.DataFrame
    columns: Sequence[Column]
    paper: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    best: frozenset[tuple[Any, str]] = frozenset()
    alike: frozenset[tuple[Any, str]] = frozenset()
    notes: Sequence[str] = ()

    def mark(self, label: Any, key: str) -> Literal["best", "alike", ""]:
        """Of the cell in the row `label` and the column `key`."""
        at = (label, key)
        return "best" if at in self.best else "alike" if at in self.alike else ""


@dataclass(frozen=True)
class RunDetail:
    """A line of how it was run: a name and one value or several."""

    name: str
    values: Sequence[str]


@dataclass(frozen=True, eq=False)
class Contents:
    """What a report is made of."""

    title: str  # the study's name
    lead: str  # its extent in a line
    answer: Sequence[str]  # the first sentences, each whole
    figures: Sequence[Figure]
    tables: Sequence[Table]
    claims: Sequence[Table] = ()  # the table of claims
    how: Sequence[RunDetail] = ()
    missing: Sequence[str] = ()  # what a partly finished study lacks, a sentence each
    wrong: Sequence[str] = ()  # where numbers do not agree with one another, a sentence each
    # names of figures and tables that a reader sees first, of several of a kind the one that the filters
    # choose. No two figures or tables have the same name
    first: Sequence[str] = ()
    # what is told before all else, a sentence for each network and data set
    headline: Sequence[str] = ()
