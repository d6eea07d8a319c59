"""`offramp tables`: the tables of a paper."""

from __future__ import annotations

import json as jsonlib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli import options
from offramp.cli.options import flag, option
from offramp.cli.render import emit, show_names, tell_missing
from offramp.errors import OfframpError
from offramp.report.tables import TABLES
from offramp.terminal import GAP, console, table
from offramp.units import counted

if TYPE_CHECKING:
    from rich.table import Table as Grid

    from offramp.report.model import Table
    from offramp.report.render.cells import Cell, Layout


def tables(
    store: options.ResultsArgument = None,
    store_: options.StoreOption = None,
    out: Annotated[Path, option("FOLDER", "Where to write the files.")] = Path("tables"),
    only: options.OnlyOption = None,
    format_: Annotated[str, option("md,latex,csv", "The kinds of file.", "--format")] = "md,latex,csv",
    show: Annotated[
        list[str] | None, option("NAME", "Print this table and write no file. Repeatable.")
    ] = None,
    list_: Annotated[bool, flag("--list", "List the tables and stop.")] = False,
    study: options.StudyOption = None,
    json: options.JsonOption = False,
) -> None:
    """Write the paper's tables, and more.

    It writes Markdown, LaTeX (booktabs) and CSV (unrounded). The best value of a column is bold. Values
    that do not differ significantly from it are marked. Notes below a table say what was not tested.

    \b
    Examples:
      offramp tables runs --show main          print one
      offramp tables runs --out tables         write all
      offramp tables runs --only anova --only order-costs --format latex
      offramp tables --list                    list all

    docs/tables.md says which table of the paper each one matches, and gives the rules.
    """
    from offramp.report import evidence
    from offramp.report.registry import listed
    from offramp.report.render import tables as files
    from offramp.report.tables import make

    if list_:
        show_names("table", listed(TABLES), json)
        return
    chosen = files.formats([name.strip() for name in format_.split(",") if name.strip()])
    if not chosen:
        raise OfframpError("--format names no kind of file; write some of md, latex, csv")
    wanted = [*(show or []), *(only or [])]
    source = options.named(store, store_)
    found = evidence.open(source, study)
    made = make(found, wanted)
    if not made:
        what = f"for {', '.join(wanted)}" if wanted else "in any finished trial"
        raise OfframpError(
            f"{source} has nothing {what}; run a study first, or see offramp tables --list"
        )
    tell_missing(() if json else found.missing)
    if show and json:
        emit({"tables": list(map(_values, made)), "missing": list(found.missing)})
        return
    if show:
        for one in made:
            _print(one)
        return
    paths = files.write(made, out, chosen)
    if json:
        names = [one.name for one in made]
        emit({"tables": names, "files": list(map(str, paths)), "missing": list(found.missing)})
        return
    typer.echo(f"{counted(len(made), 'table')} in {counted(len(paths), 'file')}: {out}")


BEST, ALIKE = " *", " ≈"


LEAST = 13  # columns of the screen that words get at least
# What names a row.
LABELS = {*("strategy", "side", "by", "exit", "compared", "measure", "model", "data", "a", "b")}


def _print(found: Table) -> None:
    """Print title, caption, table and notes."""
    from offramp.report.render.cells import layout

    words = layout(found)
    once = [i for i in range(len(words.titles)) if _said(found, words, i)]
    whole = [i for i in range(len(words.titles)) if i not in once]
    screen = console()
    paper = f" (the paper's {found.paper})" if found.paper else ""
    title = f"{found.title}{paper}"
    typer.echo(f"\n{textwrap.fill(title, screen.width)}")
    if once:
        typer.echo(", ".join(f"{words.titles[i]} {words.rows[0][i].text}" for i in once))
    typer.echo()
    for group in groups(found, words, whole, screen.width):
        screen.print(_grid(words, group, screen.width))
        screen.print()
    typer.echo(textwrap.fill(found.caption + words.legend("*"), screen.width))
    for note in found.notes:
        typer.echo(textwrap.fill(note, screen.width, initial_indent="- ", subsequent_indent="  "))


def _values(found: Table) -> dict[str, Any]:
    """A table for programs: unrounded values by column key, null where there is none."""
    rows = found.frame.reset_index()
    keys = [column.key for column in found.columns if column.key in rows]
    return {
        "name": found.name,
        "title": found.title,
        "caption": found.caption,
        "paper": found.paper,
        "rows": jsonlib.loads(rows[keys].to_json(orient="records")),
        "notes": list(found.notes),
    }


def _said(found: Table, words: Layout, i: int) -> bool:
    """Whether a column says the same in every row, and can be said once above."""
    key = found.columns[i].key
    return key in ("model", "data") and len({row[i].text for row in words.rows}) == 1


def groups(found: Table, words: Layout, columns: Sequence[int], width: int) -> list[list[int]]:
    """Columns in as many tables as it takes, what names the rows repeated in each. Numbers never break,
    words only between words."""
    whole, least = _widths(words), _least(words)
    if sum(whole[i] for i in columns) <= width + GAP:
        return [list(columns)]
    labels = [i for i in columns if found.columns[i].key in LABELS]
    room = width + GAP - sum(least[i] for i in labels)
    parts: list[list[int]] = [[]]
    for i in columns:
        if i in labels:
            continue
        if parts[-1] and sum(least[j] for j in parts[-1]) + least[i] > room:
            parts.append([])
        parts[-1].append(i)
    return [[*labels, *part] for part in parts]


def _widths(words: Layout) -> list[int]:
    return [
        GAP + max([len(title), *(len(_text(row[i])) for row in words.rows)])
        for i, title in enumerate(words.titles)
    ]


def _least(words: Layout) -> list[int]:
    """Widths below which a column cannot go: of its longest word, or of its longest number."""
    found = []
    for i, (title, whole) in enumerate(zip(words.titles, _widths(words), strict=True)):
        texts = " ".join([title, *(_text(row[i]) for row in words.rows)]).split()
        longest = max(map(len, texts), default=0)
        found.append(whole if words.numeric[i] else GAP + max(longest, min(whole - GAP, LEAST)))
    return found


def _grid(words: Layout, columns: Sequence[int], width: int) -> Grid:
    grid = table([])
    for i, room in zip(columns, _shared(words, columns, width), strict=True):
        if words.numeric[i]:
            grid.add_column(words.titles[i], justify="right", no_wrap=True)
        else:
            grid.add_column(words.titles[i], overflow="fold", width=room)
    for row in words.rows:
        grid.add_row(*(_text(row[i]) for i in columns))
    return grid


def _shared(words: Layout, columns: Sequence[int], width: int) -> list[int | None]:
    """Widths that use the screen: what a column needs least, and of the rest a share by what it lacks.
    None where even the least does not fit, and words must break."""
    whole, least = _widths(words), _least(words)
    rest = width + GAP - sum(least[i] for i in columns)
    if rest < 0:
        return [None] * len(columns)
    lack = max(sum(whole[i] - least[i] for i in columns), 1)
    part = min(rest / lack, 1.0)
    return [least[i] - GAP + int(part * (whole[i] - least[i])) for i in columns]


def _text(cell: Cell) -> str:
    return cell.text + {"best": BEST, "alike": ALIKE}.get(cell.mark, "")
