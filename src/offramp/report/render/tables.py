"""Tables as files: Markdown, LaTeX, and CSV with values unrounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from offramp.errors import OfframpError, nearest
from offramp.escape import cells
from offramp.files import replacing, writing
from offramp.report.model import Table
from offramp.report.render.latex import latex
from offramp.report.render.markdown import markdown


def csv(table: Table) -> str:
    """The frame's columns, the printed ones first, each followed by its deviation. Where values are
    marked, a column `KEY_mark` says `best` or `alike`. Missing values are empty. Text that a spreadsheet
    would compute begins with an apostrophe."""
    keys: list[str] = []
    for column in table.columns:
        keys += [key for key in (column.key, column.spread) if key is not None and key not in keys]
    rest = [key for key in table.frame.columns if key not in keys]
    frame = table.frame[[*keys, *rest]].copy()
    for key in sorted({key for _, key in table.best | table.alike}):
        marks = [table.mark(label, key) for label in frame.index]
        frame.insert(list(frame.columns).index(key) + 1, f"{key}_mark", marks)
    return str(cells(frame).to_csv(index=False, lineterminator="\n"))


FORMATS: Mapping[str, tuple[str, Callable[[Table], str]]] = MappingProxyType(
    {"md": ("md", markdown), "latex": ("tex", latex), "csv": ("csv", csv)}
)


def formats(names: Sequence[str]) -> tuple[str, ...]:
    """Check names of FORMATS. Raises OfframpError for an unknown one."""
    for name in names:
        if name not in FORMATS:
            raise OfframpError(f"there is no table format '{name}'{nearest(name, FORMATS)}")
    return tuple(dict.fromkeys(names))


def write(tables: Sequence[Table], folder: Path, chosen: Sequence[str]) -> tuple[Path, ...]:
    """Write each table in each format, `folder/NAME.md`, `.tex`, `.csv`, replacing files of that name.

    chosen: names of FORMATS. Files appear whole or not at all. Raises OfframpError where the folder is
    a file or cannot be written.
    """
    paths = []
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        for name in formats(chosen):
            ending, render = FORMATS[name]
            path = folder / f"{table.name}.{ending}"
            with writing(path), replacing(path) as temporary:
                temporary.write_text(render(table), encoding="utf-8", newline="\n")
            paths.append(path)
    return tuple(paths)
