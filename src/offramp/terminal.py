"""Tables for the terminal. Nothing is cut; what is too wide is folded or split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import IO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP = 2  # columns between two columns of a table


def console(file: IO[str] | None = None) -> Console:
    """Standard output, or a file; rich finds the width, 80 where there is no terminal. What stands in
    brackets is the user's own, not markup."""
    return Console(file=file, force_jupyter=False, highlight=False, markup=False, emoji=False)


def table(left: Sequence[str], right: Sequence[str] = (), rows: Iterable[Sequence[str]] = ()) -> Table:
    """Columns of words, which fold when there is no room, then columns of numbers, which never do."""
    made = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), expand=False
    )
    for title in left:
        made.add_column(title, overflow="fold")
    for title in right:
        made.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def show(
    tables: Table | Iterable[Table], title: str = "", note: str = "", file: IO[str] | None = None
) -> None:
    """Print tables under one title, a note below, and an empty line after each of them."""
    screen = console(file)
    if title:
        screen.print(Text(title, style="bold"))
    for one in [tables] if isinstance(tables, Table) else tables:
        screen.print(one)
        screen.print()
    if note:
        screen.print(f"{note}\n")


def split(label: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[Table]:
    """Rows of numbers by label, in as many tables as it takes for the screen's width."""
    widths = [
        GAP + max(len(text) for text in (title, *(cells[i] for cells in rows.values())))
        for i, title in enumerate(columns)
    ]
    screen = console().width
    room = screen - min(max(map(len, (label, *rows))), screen // 2)
    groups: list[list[int]] = [[]]
    for i, width in enumerate(widths):
        if groups[-1] and sum(widths[j] for j in groups[-1]) + width > room:
            groups.append([])
        groups[-1].append(i)
    return [
        table([label], [columns[i] for i in g], [(n, *(row[i] for i in g)) for n, row in rows.items()])
        for g in groups
    ]
