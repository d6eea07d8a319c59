"""Files of tables (CSV, TSV, Parquet, JSON lines), and the image files that their cells name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from offramp.data.images.files import SUFFIXES as IMAGES
from offramp.data.sources import tree
from offramp.errors import OfframpError, in_line
from offramp.units import counted

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".jsonl", ".ndjson")
_READ = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
)
SEPARATORS = "\t,; "  # the first of them that a file's first line holds


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The image files below a folder, found by their path, the end of one, or without the ending.

    below: only those in this folder of `root`. Raises OfframpError where there is none.
    """

    root: Path
    below: str | None = None

    def __post_init__(self) -> None:
        if not self.place.is_dir():
            raise OfframpError(f"there is no folder {self.place}; correct data.images, or leave it out")

    @property
    def place(self) -> Path:
        return self.root / (self.below or "")

    @cached_property
    def _named(self) -> dict[str, list[str]]:
        """Paths below the root, by file name and by file name without its ending."""
        found: dict[str, list[str]] = {}
        for path in sorted(tree.image_files(self.root, self.place)):
            name = path.rpartition("/")[2]
            for key in {name, name.rpartition(".")[0]}:
                found.setdefault(key, []).append(path)
        return found

    def of(self, cell: str) -> str | None:
        """The path below the root of the image that a cell names; None where there is none.

        Raises OfframpError for a cell that leads out of the root, and one that fits several images.
        """
        path = PurePosixPath(cell.strip().replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            full = Path(path) if path.is_absolute() else self.root / path
            try:
                path = PurePosixPath(full.resolve().relative_to(self.root.resolve()))
            except ValueError:
                raise OfframpError(
                    f"the table names {cell}, which is not in {self.root}; give paths below that folder"
                ) from None
        ending = f"/{path}"
        fits = [
            found
            for found in self._named.get(path.name, ())
            if f"/{found}".endswith(ending) or f"/{found.rpartition('.')[0]}".endswith(ending)
        ]
        if len(fits) > 1:
            # The very path, from the root or the folder that is meant, before others that end with it.
            for place in (str(path), str(PurePosixPath(self.below or "", path))):
                if place in fits:
                    return place
                there = [found for found in fits if found.rpartition(".")[0] == place]
                if len(there) == 1:
                    return there[0]
            raise OfframpError(
                f"the table names {cell}, and {fits[0]} and {fits[1]} in {self.root} both fit; write "
                "paths into the table, or set data.images to the folder that it means"
            )
        return fits[0] if fits else None

    def all_of(self, cells: Sequence[str], source: str, partial: bool, fetch: str) -> list[str | None]:
        """`of` every cell. Raises OfframpError where an image is missing, unless `partial`, or all."""
        found = [self.of(cell) for cell in cells]
        absent = [cell for cell, path in zip(cells, found, strict=True) if path is None]
        if absent and (not partial or len(absent) == len(found)):
            raise OfframpError(
                f"{self.place} lacks {len(absent)} of the {counted(len(found), 'image')} that {source} "
                f"names, {absent[0]} first; fetch {fetch}, or set data.partial: true"
            )
        return found


def read(path: Path, images: ImageFiles | None = None) -> pd.DataFrame:
    """A table, all of it text, empty where nothing is written; columns that hold no text, numbers or
    truth values are left out. images: where its first line names one of them, it has no names of
    columns, which are then `column 1`, `column 2`, ….

    Raises OfframpError naming the file, where it cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return _parquet(path)
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            return _lines(path)
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline()
        separator = next((each for each in SEPARATORS if each in first.strip()), ",")
        table = pd.read_csv(
            path, sep=separator, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    # Errors of pandas are ValueErrors.
    except (ValueError, KeyError, OSError, RecursionError, pa.ArrowException) as error:
        reason = in_line(error)
        raise OfframpError(
            f"{path} cannot be read as a table ({reason}); correct or restore it"
        ) from error
    if images is not None and any(_is_image(cell, images) for cell in table.iloc[0]):
        table.columns = [f"column {n}" for n in range(1, len(table.columns) + 1)]
        return table
    table.columns = [str(name).strip() for name in table.iloc[0]]
    return table.iloc[1:].reset_index(drop=True)


def _is_image(cell: str, images: ImageFiles) -> bool:
    return has_ending(cell) and images.of(cell) is not None


def has_ending(cell: str) -> bool:
    """Whether it ends as image files do."""
    return PurePosixPath(cell.strip()).suffix.lower() in IMAGES


def _parquet(path: Path) -> pd.DataFrame:
    with pq.ParquetFile(path) as file:
        table = file.read()
    kept = {}
    for name in table.column_names:
        kind = table[name].type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if any(test(kind) for test in _READ):
            kept[name] = [_text(value) for value in table[name].to_pylist()]
    return pd.DataFrame(kept, dtype=str)


def _lines(path: Path) -> pd.DataFrame:
    # Not `splitlines`: JSON's text may hold other ends of lines, such as U+2028, as they are.
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no object")
    simple = [{k: _text(v) for k, v in row.items() if not isinstance(v, (dict, list))} for row in rows]
    return pd.DataFrame(simple, dtype=str).fillna("")


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value)


def tables(root: Path) -> Iterator[Path]:
    """The tables in a folder or directly below it that name images of it."""
    images = ImageFiles(root)
    for path in sorted((*root.iterdir(), *(p for place in tree.folders(root) for p in place.iterdir()))):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            try:
                head = read(path, images).head(3)
                if any(all(map(images.of, head[name])) for name in head if len(head)):
                    yield path
            except OfframpError:
                continue
