"""Text and tables for a terminal, as plain text and for a notebook.

Nothing is cut: what is too wide is folded or split. No codes that steer a terminal get there but rich's
own.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import IO, Any, cast

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import (
    Console,
    ConsoleOptions,
    ConsoleRenderable,
    Group,
    RenderableType,
    RenderHook,
    RenderResult,
)
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from offramp.escape import html, preformatted, printable

GAP = 2  # columns between two columns of a table
PROSE = 100  # columns that a paragraph takes at most: longer lines are hard to read
NARROWEST = 10  # columns of numbers that are folded after all
PLAIN = 80  # columns of plain text, which nobody's screen is known for


@contextmanager
def plain() -> Iterator[None]:
    """Spell out, while the block runs, codes that steer a terminal on standard output and error.

    So are, from then on, letters that the locale lacks, as Python does on standard error.
    """
    screen = sys.stdout
    if isinstance(screen, io.TextIOWrapper) and screen.errors in ("strict", "surrogateescape"):
        screen.reconfigure(errors="backslashreplace")
    out, err = (cast(IO[str], SpelledOut(stream)) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


@dataclass(frozen=True, eq=False)
class SpelledOut:
    """A stream of text in which codes that steer a terminal are spelled out.

    Attributes:
        rich_proxied_file: The stream itself. rich looks for this name and writes its own codes there.
    """

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
    """A console of rich on standard output, standard error or another stream.

    rich finds the width, 80 where there is no terminal. What stands in brackets is the user's own, not
    markup, and codes in it are spelled out.

    Args:
        file: Another stream. It is no terminal, whatever FORCE_COLOR says, which Jupyter sets.
        stderr: Standard error, where no `file` is named.
    """
    stream = file or (sys.stderr if stderr else sys.stdout)
    while (inner := getattr(stream, "rich_proxied_file", None)) is not None:
        stream = inner  # rich looks through one of them only, and has such streams of its own
    screen = Console(
        file=stream,
        force_terminal=None if file is None else False,
        force_jupyter=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    screen.push_render_hook(_Spelling())
    return screen


class _Spelling(RenderHook):
    """What a console prints, with the codes in its text spelled out."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Spelled(renderable) for renderable in renderables]


@dataclass(frozen=True)
class _Spelled:
    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in console.render(self.inner, options):
            yield part if part.control else part._replace(text=printable(part.text, keep="\n\t"))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self.inner)


class Verbatim(str):
    """Text that is shown as it is, such as a file: never folded."""

    __slots__ = ()


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        words: Titles of the first columns. Their cells fold where there is no room: at spaces, else
            behind hyphens, as names of trials have.
        numbers: Titles of the other columns, whose cells never fold. Where they do not fit beside each
            other, the table is split, and the words are repeated.
        rows: Cells, one for each column.
        title: Above the table; empty for none.
        note: Below it; empty for none.
        spare: Columns that a narrow screen goes without, in this order. The note then names them, and
            the last column folds before the first.

    Example:
        >>> print(plain_text([TextTable(["exit"], ["MACs"], [("1", "2 k"), ("final", "8 k")])]))
        exit   MACs
        ───────────
        1       2 k
        final   8 k
    """

    words: Sequence[str]
    numbers: Sequence[str] = ()
    rows: Iterable[Sequence[str]] = ()
    title: str = ""
    note: str = ""
    spare: Sequence[str] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(tuple(row) for row in self.rows))

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.words, *self.numbers)

    def within(self, width: int) -> list[TextTable]:
        """This table in tables that fit a screen of that many columns."""
        table = self
        for name in self.spare:
            if table._width > width:
                table = table._of([i for i, column in enumerate(table.columns) if column != name])
        absent = [name for name in self.spare if name not in table.columns]
        if absent:
            more = f"A wider screen or --json also has: {', '.join(absent)}."
            table = replace(table, note=f"{self.note} {more}".strip(), spare=())
        if self.spare and table._width > width:  # the words stay whole, to be copied
            room = max(width - sum(table._widths[:-1]), NARROWEST)
            rows = [[*row[:-1], "\n".join(folded(row[-1], room))] for row in table.rows]
            table = replace(table, rows=rows)
        words = min(sum(table._widths[: len(self.words)]), max(width // 2, GAP))
        groups: list[list[int]] = [[]]
        for i in range(len(table.words), len(table.columns)):
            used = sum(table._widths[j] for j in groups[-1])
            if groups[-1] and words + used + table._widths[i] > width + GAP:
                groups.append([])
            groups[-1].append(i)
        last = len(groups) - 1
        return [
            replace(
                table._of([*range(len(table.words)), *group]),
                title="" if at else table.title,
                note=table.note if at == last else "",
            )
            for at, group in enumerate(groups)
        ]

    @property
    def _widths(self) -> list[int]:
        """What each column takes when nothing folds, with the gap behind it."""
        return [
            GAP + max(cell_len(line) for cell in cells for line in cell.split("\n"))
            for cells in zip(self.columns, *self.rows, strict=True)
        ]

    @property
    def _width(self) -> int:
        return sum(self._widths) - GAP

    def _of(self, columns: Sequence[int]) -> TextTable:
        """The table with some of its columns, by their positions."""
        split = len(self.words)
        return replace(
            self,
            words=[self.columns[i] for i in columns if i < split],
            numbers=[self.columns[i] for i in columns if i >= split],
            rows=[[row[i] for i in columns] for row in self.rows],
        )

    def grid(self) -> Table:
        """The table itself, for rich."""
        grid = Table(
            box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), expand=False
        )
        for title in self.words:
            grid.add_column(title, overflow="fold")
        for title in self.numbers:
            grid.add_column(title, justify="right", no_wrap=True)
        for row in self.rows:
            split = len(self.words)
            grid.add_row(*map(_Folded, row[:split]), *row[split:])
        return grid


TextBlocks = Sequence[str | TextTable]  # paragraphs and tables, in order


def show(document: TextBlocks, file: IO[str] | None = None) -> None:
    """Print paragraphs and tables.

    Args:
        document: A paragraph's lines are folded at spaces. Words stay whole, so that a path can be
            copied; `Verbatim` text is not folded.
        file: Another place than standard output, in plain text.
    """
    screen = console(file)
    if document:
        screen.print(rendered(document, screen.width), crop=False)


def rendered(document: TextBlocks, width: int) -> Group:
    """Paragraphs and tables for rich, an empty line around each table."""
    parts: list[RenderableType] = []
    for at, block in enumerate(document):
        if at and (isinstance(block, TextTable) or isinstance(document[at - 1], TextTable)):
            parts.append("")
        match block:
            case TextTable():
                for number, part in enumerate(block.within(width)):
                    parts += [""] if number else []
                    parts += [_paragraph(part.title, width, "bold")] if part.title else []
                    parts += [part.grid()]
                    parts += ["", _paragraph(part.note, width)] if part.note else []
            case Verbatim():
                parts.append(_whole(block.removesuffix("\n")))
            case str():
                parts.append(_paragraph(block, width))
    return Group(*parts)


def _paragraph(text: str, width: int, style: str = "") -> Text:
    return _whole("\n".join(paragraph(text, width)), style)


def _whole(text: str, style: str = "") -> Text:
    """Text in lines as they are, however long."""
    return Text(text, style, no_wrap=True, overflow="ignore")


def paragraph(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, or PROSE. What goes on from a line is indented as the line is,
    and behind the dash or number of a list."""
    lines: list[str] = []
    for line in text.split("\n"):
        indent = re.match(r"\s*(- |\d+\. )?", line)
        hang = " " * (indent.end() if indent else 0)
        lines += textwrap.wrap(
            line,
            min(width, PROSE),
            subsequent_indent=hang,
            break_on_hyphens=False,
            break_long_words=False,
        ) or [""]
    return lines


def plain_text(document: TextBlocks) -> str:
    """Paragraphs and tables as plain text, within 80 columns."""
    text = io.StringIO()
    console(text).print(rendered(document, PLAIN), width=PLAIN, crop=False)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def as_html(document: TextBlocks) -> str:
    """Paragraphs and tables for a notebook."""
    parts = []
    for block in document:
        match block:
            case TextTable(words, _, rows, title, note):
                head = "".join(f"<th>{html(name)}</th>" for name in block.columns)
                body = "".join(f"<tr>{_html_cells(row, len(words))}</tr>" for row in rows)
                above = f"<p><b>{html(title)}</b></p>" if title else ""
                below = f"<p>{_html_lines(note)}</p>" if note else ""
                table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
                parts.append(above + table + below)
            case Verbatim():
                parts.append(preformatted(block))
            case str():
                parts.append(f"<p>{_html_lines(block)}</p>")
    return "".join(parts)


def _html_cells(row: Sequence[str], words: int) -> str:
    left, right = ' style="text-align: left"', ' style="text-align: right"'
    return "".join(
        f"<td{left if i < words else right}>{_html_lines(cell)}</td>" for i, cell in enumerate(row)
    )


def _html_lines(text: str) -> str:
    return "<br>".join(map(html, text.split("\n")))


@dataclass(frozen=True)
class _Folded:
    """A cell of words."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("\n".join(folded(self.text, options.max_width)))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, Text(self.text))


def folded(text: str, width: int) -> list[str]:
    """The lines of a text, of at most `width` letters each.

    Lines are broken at spaces, a longer word behind its hyphens, and a part that is longer still
    anywhere.

    Example:
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
