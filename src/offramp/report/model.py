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

    name: of its files, [a-z0-9-]+.  title: a few words.  caption: whole sentences: what is drawn, the
    interval, the number of seeds, and the direction that is better.  alt: what a reader who cannot see
    it should know.  spec: Vega-Lite in JSON, data inline.  paper: the paper's figures that it answers
    to, such as `Figs. 8, 18`, or empty.  about: the values of `model`, `data` and `exit` that it shows
    one of; what it does not name it shows all of.
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

    key: of the frame.  title: with its unit.  kind: how values are written (`text` as they are).
    digits: after the point, or significant ones for `p` and `si`.  better: the direction that is
    good, for the mark of the best.  spread: the frame's column with the deviation to print after ±.
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

    frame: unformatted values, NaN where there is none.  best, alike: (row label of the frame's index,
    column key) of cells with the best value, and of those not significantly different from it.
    notes: one a line below the table, such as why a cell is empty.
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
class Detail:
    """A line of how it was run: a name and one value or several."""

    name: str
    values: Sequence[str]


@dataclass(frozen=True, eq=False)
class Contents:
    """What a report is made of.

    title: the study's name.  lead: its extent in a line.  answer: the first sentences, each whole.
    missing: what a partly finished study lacks, a sentence each.  wrong: where numbers do not agree with
    one another, a sentence each.  claims: the table of claims.  first: names of figures and tables that
    a reader sees first, of several of a kind the one that the filters choose.
    No two figures or tables have the same name.
    """

    title: str
    lead: str
    answer: Sequence[str]
    figures: Sequence[Figure]
    tables: Sequence[Table]
    claims: Sequence[Table] = ()
    how: Sequence[Detail] = ()
    missing: Sequence[str] = ()
    wrong: Sequence[str] = ()
    first: Sequence[str] = ()
