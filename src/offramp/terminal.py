"""Tables for the terminal. Nothing of them is cut: what is too wide is folded or split. No codes that
steer a terminal get there but rich's own."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, cast

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import (
    Console,
    ConsoleOptions,
    ConsoleRenderable,
    RenderableType,
    RenderHook,
    RenderResult,
)
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from offramp.escape import printable

GAP = 2  # columns between two columns of a table


@contextmanager
def plain() -> Iterator[None]:
    """While the block runs, codes that steer a terminal are spelled out on standard output and error.
    So are, from then on, letters that the locale lacks, as Python does on standard error."""
    screen = sys.stdout
    if isinstance(screen, io.TextIOWrapper) and screen.errors in ("strict", "surrogateescape"):
        screen.reconfigure(errors="backslashreplace")
    out, err = (cast(IO[str], SpelledOut(stream)) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


@dataclass(frozen=True, eq=False)
class SpelledOut:
    """A stream of text in which such codes are spelled out. rich_proxied_file: the stream itself, where
    rich, which looks for this name, writes its own codes."""

    rich_proxied_file: IO[str]
    buffer = None  # nobody writes past this

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("text is written here, not bytes")  # click tries
        self.rich_proxied_file.write(printable(text, keep="\n\t"))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def console(file: IO[str] | None = None, stderr: bool = False) -> Console:
    """Standard output, or another place, which is not a terminal whatever FORCE_COLOR says, as Jupyter
    does; rich finds the width, 80 where there is no terminal. What stands in brackets is the user's own,
    not markup, and codes in it are spelled out."""
    place = file or (sys.stderr if stderr else sys.stdout)
    while (inner := getattr(place, "rich_proxied_file", None)) is not None:
        place = inner  # rich looks through one of them only, and has such streams of its own
    made = Console(
        file=place,
        force_terminal=None if file is None else False,
        force_jupyter=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    made.push_render_hook(_Spelling())
    return made


class _Spelling(RenderHook):
    """What a console prints, with the codes in its text spelled out."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Spelled(one) for one in renderables]


@dataclass(frozen=True)
class _Spelled:
    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in console.render(self.inner, options):
            yield part if part.control else part._replace(text=printable(part.text, keep="\n\t"))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self.inner)


def table(left: Sequence[str], right: Sequence[str] = (), rows: Iterable[Sequence[str]] = ()) -> Table:
    """Columns of words, which fold when there is no room (at spaces, else behind hyphens, as names of
    trials have), then columns of numbers, which never do."""
    made = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), expand=False
    )
    for title in left:
        made.add_column(title, overflow="fold")
    for title in right:
        made.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        made.add_row(*map(_Folded, row[: len(left)]), *row[len(left) :])
    return made


@dataclass(frozen=True)
class _Folded:
    """A cell of words."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("\n".join(folded(self.text, options.max_width)))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, Text(self.text))


def folded(text: str, width: int) -> list[str]:
    """A text in lines of at most `width` letters: broken at spaces, a longer word behind its hyphens, a
    part that is longer still anywhere.

    >>> folded("joint of joint-airbench-cifar10-s42", 18)
    ['joint of joint-', 'airbench-cifar10-', 's42']
    """
    return [line for part in text.split("\n") for line in _folded(part, width)]


def _folded(text: str, width: int) -> list[str]:
    lines = [""]
    for word in re.findall(r"\s*\S+", text):
        parts = re.findall(r"\s*[^-]*-*", word) if cell_len(word.strip()) > width else [word]
        for part in parts:
            if lines[-1] and cell_len(lines[-1] + part) > width:
                lines.append("")
            lines[-1] += part if lines[-1] else part.lstrip()
            while cell_len(lines[-1]) > width and len(lines[-1]) > 1:
                fits = max(1, len(set_cell_size(lines[-1], width).rstrip()))
                lines[-1:] = [lines[-1][:fits], lines[-1][fits:]]
    return lines


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
