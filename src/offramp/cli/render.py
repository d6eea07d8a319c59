"""Tables and numbers for the terminal. Nothing is cut; what is too wide is folded or split."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP = 2  # columns between two columns of a table


def console() -> Console:
    """Standard output; rich finds the width, 80 where there is no terminal. What stands in brackets
    is the user's own, not markup."""
    return Console(highlight=False, markup=False, emoji=False)


def table(left: Sequence[str], right: Sequence[str] = ()) -> Table:
    """Columns of words, which fold when there is no room, then columns of numbers, which never do."""
    made = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), expand=False
    )
    for title in left:
        made.add_column(title, overflow="fold")
    for title in right:
        made.add_column(title, justify="right", no_wrap=True)
    return made


def show(tables: Table | Iterable[Table], title: str = "", note: str = "") -> None:
    """Print tables under one title, a note below, and an empty line after each of them."""
    screen = console()
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
    made = []
    for group in groups:
        made.append(table([label], [columns[i] for i in group]))
        for name, cells in rows.items():
            made[-1].add_row(name, *(cells[i] for i in group))
    return made


def emit(value: Any) -> None:
    """An answer for programs: JSON on standard output, null for a number that is not finite."""
    typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def counted(number: int, thing: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def ranges(numbers: Iterable[int]) -> str:
    """`1–3, 5`"""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def say(*paragraphs: str, indent: str = "") -> None:
    """Sentences, folded at spaces to the screen's width or 100 columns."""
    for text in paragraphs:
        typer.echo("\n".join(folded(text, indent)))


def folded(text: str, indent: str = "") -> list[str]:
    """The lines of a paragraph."""
    width = min(console().width, 100)
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False) or [""]


def notes(missing: Sequence[str], most: int = 4) -> None:
    """What results lack, a sentence each; of many, the first ones and how many there are."""
    for note in missing if len(missing) <= most else missing[: most - 1]:
        say(f"Note: {note}.")
    if len(missing) > most:
        say(f"Note: {len(missing) - most + 1} more of these; --json lists all.")


def tell_missing(missing: Sequence[str]) -> None:
    """What results lack, on standard error."""
    for note in missing:
        typer.echo(f"Missing: {note}.", err=True)


def show_names(what: str, about: Mapping[str, str], as_json: bool) -> None:
    """Names, and what stands behind each in a line. what: they are, such as `figure`."""
    if as_json:
        emit(about)
        return
    listing = table([what, "what it shows"])
    for name, line in about.items():
        listing.add_row(name, line)
    show(listing)
