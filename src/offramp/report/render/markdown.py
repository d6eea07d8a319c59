"""A table in GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from offramp.escape import markdown as escape
from offramp.report.model import Table
from offramp.report.render.cells import Cell, layout


def markdown(table: Table) -> str:
    """Title, caption, the table and its notes. Ends with a line break."""
    words = layout(table)
    rules = ["---:" if right else ":---" for right in words.numeric]
    lines = [
        f"**{escape(table.title)}**{_paper(table)}",
        "",
        *_table(words.titles, rules, words.rows),
        "",
        escape(table.caption) + words.legend("**Bold**"),
    ]
    if table.notes:
        lines += ["", *(f"- {escape(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _paper(table: Table) -> str:
    return f" (the paper's {escape(table.paper)})" if table.paper else ""


def _table(titles: Sequence[str], rules: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """Columns padded, so that the source can be read too."""
    body = [[escape(title) for title in titles], *([_cell(c) for c in row] for row in rows)]
    widths = [max(len(rules[i]), *(len(row[i]) for row in body)) for i in range(len(titles))]
    right = [rule.endswith(":") for rule in rules]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    ruler = [
        "-" * (width - 1) + ":" if to_right else ":" + "-" * (width - 1)
        for width, to_right in zip(widths, right, strict=True)
    ]
    return [line(body[0]), line(ruler), *(line(row) for row in body[1:])]


def _cell(cell: Cell) -> str:
    text = escape(cell.text) or " "
    if cell.mark == "best":
        return f"**{text}**"
    return f"{text} ≈" if cell.mark == "alike" else text
