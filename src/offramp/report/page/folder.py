"""The report as a folder: the page, and beside it figures, tables and data as files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from offramp.errors import OfframpError
from offramp.files import folder_at, is_litter, writing
from offramp.report.model import Contents
from offramp.report.page.html import page
from offramp.report.render import tables
from offramp.report.render.charts import text
from offramp.report.render.theme import themed

MARKER = "report.json"  # says that the folder is ours, and what of it


def check(out: Path) -> None:
    """Raises OfframpError where a report must not go: what is there is not, or not only, a report."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OfframpError(f"{out} is not a folder; choose another --out")
    if not out.exists():
        return
    paths = [path for path in out.rglob("*") if path.is_symlink() or not path.is_dir()]
    files = {path.relative_to(out).as_posix() for path in paths if not is_litter(path)}
    if not files:
        return
    try:
        ours = set(json.loads((out / MARKER).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, LookupError, TypeError):
        raise OfframpError(
            f"{out} is there and is no earlier report; choose another --out, or remove it"
        ) from None
    if other := sorted(files - ours - {MARKER}):
        raise OfframpError(
            f"{out} holds {other[0]}, which no report wrote and a new one would remove; move it away "
            "or choose another --out"
        )


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder with places for figures, tables and data, that becomes `out` at the end of the block, in
    the place of an earlier report; on any failure `out` is what it was.

    Raises OfframpError as `check` does, and where `out` cannot be written.
    """
    check(out)
    with writing(out), folder_at(out) as folder:
        for name in ("figures", "tables", "data"):
            (folder / name).mkdir()
        yield folder
        _mark(folder)
        check(out)  # again: somebody may have put a file there meanwhile


def fill(folder: Path, contents: Contents, numbers: pd.DataFrame, formats: Sequence[str]) -> None:
    """Everything but the figures' files."""
    for figure in contents.figures:
        path = folder / "data" / f"{figure.name}.vl.json"
        path.write_text(text(themed(figure.spec)) + "\n", encoding="utf-8")
    tables.write([*contents.tables, *contents.claims], folder / "tables", list(tables.FORMATS))
    (folder / "index.html").write_text(page(contents, formats), encoding="utf-8", newline="\n")
    # Text columns as dictionaries: a million rows repeat a few words.
    words = [name for name in numbers.columns if numbers[name].dtype in (object, "str")]
    place, packed = folder / "data" / "numbers.parquet", dict.fromkeys(words, "category")
    numbers.astype(packed).to_parquet(place, index=False, compression="zstd")


def _mark(folder: Path) -> None:
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    marker = {"made_by": "offramp report", "offramp": version("offramp"), "files": files}
    (folder / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
