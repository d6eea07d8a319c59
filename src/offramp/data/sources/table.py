"""A table of labels (CSV, TSV, Parquet or JSON lines) and the image files that its cells name."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from offramp import files as bounds
from offramp import parquet
from offramp.data.images.files import SPLIT_FOLDERS, SUFFIXES, Files, folders, image_files
from offramp.data.raw import REGRESSION, DataSource, RawData, RawSplit
from offramp.data.splits import split_off
from offramp.errors import OfframpError, in_line, nearest
from offramp.files import read_regular, resolved
from offramp.hashing import file_digest, from_text
from offramp.units import counted

FETCH = "a table that has an image and its class in every line, and the images beside or below it"
TABLES = (".csv", ".tsv", ".txt", ".parquet", ".jsonl", ".ndjson")
SEPARATORS = "\t,; "  # the first of them that a file's first line holds

USUAL = {  # names that columns have, in lower case and with _ for what joins words
    "image": "image path file filename file_name filepath file_path image_path image_name image_file "
    "image_id img img_path id isic_id id_code image_index name",
    "label": "label labels class target category class_name label_name diagnosis dx species breed y",
    "split": "split set subset partition",
    "group": "patient patient_id group group_id subject subject_id lesion_id case_id",
}
ONE_HOT = ("0", "1", "0.0", "1.0", "False", "True", "false", "true")
TRUE = ONE_HOT[1::2]
LISTED = "|;,"  # what parts the names in a cell: the first of these that any cell holds
MOST_FRACTIONS = 20  # classes that are numbers such as 0.5; more are measurements
NOTHING = ("", "no finding", "none")

ColumnNames = tuple[str, ...]


def table(
    root: Path | None = None,
    file: str | None = None,
    image: str | None = None,
    label: str | Sequence[str] | None = None,
    split: str | None = None,
    group: str | None = None,
    images: str | None = None,
    test_share: float | None = None,
    partial: bool = False,
    several: bool = False,
) -> RawData:
    """Images that a table names, with their classes; in the order of their paths.

    Columns that are not named are recognized by their usual names, or by what is in them, where there is
    one answer; split and group may be missing.

    Args:
        root: The table, or the folder of table and images.
        file: The table, below `root`.
        image: The column of images: paths below the folder, the end of one, or names with or without
            ending.
        label: The column of classes; or several of 0 and 1, one of which is 1 in every line, each a
            class. Lines without a label are left out. With `several`: a column of names, or several of
            0 and 1.
        split: The column of splits: train, val, test or calibration, as `folder` spells them.
        group: The column of what belongs together.
        images: The folder, below `root`, that is meant, where others hold images of the same names.
        test_share: Of a table without a test split, as of `folder`.
        partial: Whether to take the images that are there, where the table names others too.
        several: Whether an image may have several labels, or none: a 1 in several columns, or several
            names in a cell, parted by `|`, `;` or `,` (or a list, in Parquet and JSON lines).

    Raises:
        OfframpError: naming the file, column or cell that is wrong.
    """
    path = _path(root, file)
    home = root if root is not None and file is not None else path.parent
    columns = {"image": image, "label": label, "split": split, "group": group}
    rows, remarks = lines(path, ImageIndex(home, images), partial, several, **columns)
    parts, classes = _parts(home, path, rows)
    if test_share is not None and "test" in parts:
        raise OfframpError(f"{path} names a test split; leave data.test_share out")
    if "split" not in rows and test_share is None:
        test_share = 0.2
    if test_share is not None:
        parts |= split_off(parts["train"], test_share)
    return RawData(
        parts["train"],
        parts.get("test"),
        classes,
        parts.get("validation"),
        parts.get("calibration"),
        {"root": str(home), "files": {path.name: {"sha256": file_digest(path)}}},
        remarks=remarks,
        cut_off=test_share is not None,
    )


def _path(root: Path | None, file: str | None) -> Path:
    if root is None:
        if file is None:
            raise OfframpError(f"data set 'table' needs its table; fetch {FETCH}, and set data.file")
        root, file = Path(file).expanduser(), None
    path = root / file if file else root
    if path.is_dir():
        paths = list(tables(path))
        if len(paths) != 1:
            names = ", ".join(str(p.relative_to(path)) for p in paths) or "none"
            raise OfframpError(f"{path} should hold one table and holds {names}; set data.file")
        return paths[0]
    if not path.is_file():
        raise OfframpError(f"there is no table {path}; fetch {FETCH}, or set data.root and data.file")
    return path


def _parts(home: Path, path: Path, rows: pd.DataFrame) -> tuple[dict[str, RawSplit], tuple[str, ...]]:
    """The splits that lines name, and the names of the classes: numbers in their order."""
    sets = [{name} if isinstance(name, str) else set(name) for name in rows["class"]]
    several = not isinstance(rows["class"].iloc[0], str)
    classes = sorted(set().union(*sets), key=_order)
    fractions = [name for name in classes if not _order(name)[0] and float(name) % 1]
    if not several and len(fractions) > MOST_FRACTIONS:
        raise OfframpError(f"{path} has numbers such as {fractions[0]} for classes{REGRESSION}")
    number = {name: i for i, name in enumerate(classes)}
    words = rows["split"] if "split" in rows else pd.Series("train", rows.index)
    splits = words.str.lower().map({word: split for split, ws in SPLIT_FOLDERS.items() for word in ws})
    if splits.isna().any():
        raise OfframpError(
            f"{path} has the split '{words[splits.isna()].iloc[0]}'; write {', '.join(SPLIT_FOLDERS)}, "
            "or set data.split to another column"
        )
    if not (splits == "train").any():
        raise OfframpError(f"{path} names no image of the training split; write train into it")
    parts = {}
    for split, part in rows.groupby(splits):
        if several:
            labels = torch.zeros(len(part), len(classes), dtype=torch.uint8)
            for row, names in enumerate(part["class"]):
                labels[row, [number[name] for name in names]] = 1
        else:
            labels = torch.tensor([number[name] for name in part["class"]])
        groups = tuple(part["group"]) if "group" in part else None
        parts[str(split)] = RawSplit(Files(home, tuple(part["path"])), labels, groups)
    return parts, tuple(classes)


def _order(name: str) -> tuple[int, float, str]:
    return (0, float(name), name) if name.replace(".", "", 1).isdecimal() else (1, 0.0, name)


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """The image files below a folder, looked up by their path, the end of one, or without the ending.

    Raises:
        OfframpError: where there is no such folder.
    """

    root: Path  # the folder
    below: str | None = None  # only those in this folder of `root`

    def __post_init__(self) -> None:
        if not self.place.is_dir():
            raise OfframpError(f"there is no folder {self.place}; correct data.images, or leave it out")

    @property
    def place(self) -> Path:
        return self.root / (self.below or "")

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """Paths below the root, by file name and by file name without its ending."""
        paths: dict[str, list[str]] = {}
        for path in sorted(image_files(self.root, self.place)):
            name = path.rpartition("/")[2]
            for key in {name, name.rpartition(".")[0]}:
                paths.setdefault(key, []).append(path)
        return paths

    def of(self, cell: str) -> str | None:
        """The path below the root of the image that a cell names; None where there is none. Raises
        OfframpError for a cell that leads out of the root, and for one that fits several images."""
        path = PurePosixPath(cell.strip().replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            try:  # an absolute path stays as it is
                path = PurePosixPath(resolved(self.root / path).relative_to(resolved(self.root)))
            except ValueError:
                raise OfframpError(
                    f"the table names {cell}, which is not in {self.root}; give paths below that folder"
                ) from None
        ending = f"/{path}"
        fits = [
            image
            for image in self._by_name.get(path.name, ())
            if f"/{image}".endswith(ending) or f"/{image.rpartition('.')[0]}".endswith(ending)
        ]
        if len(fits) > 1:
            # The very path, from the root or the folder that is meant, before others that end with it.
            for place in (str(path), str(PurePosixPath(self.below or "", path))):
                if place in fits:
                    return place
                stems = [image for image in fits if image.rpartition(".")[0] == place]
                if len(stems) == 1:
                    return stems[0]
            raise OfframpError(
                f"the table names {cell}, and {fits[0]} and {fits[1]} in {self.root} both fit; write "
                "paths into the table, or set data.images to the folder that it means"
            )
        return fits[0] if fits else None

    def all_of(self, cells: Sequence[str], source: str, partial: bool) -> list[str | None]:
        """`of` every cell. Raises OfframpError where an image is missing, unless `partial`, or all."""
        paths = [self.of(cell) for cell in cells]
        absent = [cell for cell, path in zip(cells, paths, strict=True) if path is None]
        if absent and (not partial or len(absent) == len(paths)):
            raise OfframpError(
                f"{self.place} lacks {len(absent)} of the {counted(len(paths), 'image')} that {source} "
                f"names, {absent[0]} first; fetch {FETCH}, or set data.partial: true"
            )
        return paths


def lines(
    path: Path,
    images: ImageIndex,
    partial: bool = False,
    several: bool = False,
    **columns: str | Sequence[str] | None,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """What a table says of each image that it names.

    Args:
        path: The table.
        images: Where its images are.
        partial: As of `table`.
        several: As of `table`.
        **columns: Names of columns, as of `table`.

    Returns:
        A line for each image, by ascending `path` below the images' root, with its `class` (of `several`
        a tuple of names), and its `split` and `group` where there are such columns; and what to know of
        it.

    Raises:
        OfframpError: as `table` does.
    """
    frame = read(path, images, several)
    names = {key: _by_usual_name(frame, path, key, columns.get(key)) for key in USUAL}
    names["image"] = names["image"] or _by_content(frame, path, images)
    names["label"] = names["label"] or _remaining(frame, path, names, several)
    classes = (_label_sets if several else _classes)(frame, path, names["label"])
    labeled = classes.map(lambda names: names != "")
    if not labeled.any():
        raise OfframpError(f"{path} has no line with a label; set data.label to another column")
    frame = frame[labeled]
    rows = pd.DataFrame({"class": classes[labeled]})
    rows["path"] = images.all_of(frame[names["image"][0]].tolist(), path.name, partial)
    for key in ("split", "group"):
        if names[key]:
            rows[key] = frame[names[key][0]].str.strip()
    rows = rows[rows["path"].notna()].drop_duplicates().sort_values("path", ignore_index=True)
    if "group" in rows:
        rows["group"] = rows["group"].where(rows["group"] != "", rows["path"])
    if len(twice := rows["path"][rows["path"].duplicated()]):
        raise OfframpError(
            f"{path} names {twice.iloc[0]} in several lines that differ; give every image one line"
        )
    used = [
        f"{key} is '{v[0]}'" if len(v) == 1 else f"{key} are '{v[0]}' to '{v[-1]}'"
        for key, v in names.items()
        if v
    ]
    remarks = [f"columns of {path.name}: {', '.join(used)}"]
    marks = names["label"] if several and len(names["label"]) > 1 else ()
    if empty := [name for name in marks if not any(name in each for each in rows["class"])]:
        remarks.append(f"no line of {path.name} has {_quoted(empty)}: left out of the labels")
    if not labeled.all():
        bare = counted(int((~labeled).sum()), "line")
        remarks.append(f"{bare} of {path.name} without a label left out")
    return rows, tuple(remarks)


def _by_usual_name(
    frame: pd.DataFrame, path: Path, key: str, columns: str | Sequence[str] | None
) -> ColumnNames:
    """The columns that are named, or the one of a usual name; none where there is no such one."""
    every = [str(name) for name in frame.columns]
    if columns is not None:
        names = (columns,) if isinstance(columns, str) else tuple(columns)
        for name in names:
            if name not in every:
                raise OfframpError(f"{path} has no column '{name}'{nearest(name, every)}")
    else:
        usual = USUAL[key].split()
        names = tuple(c for c in every if "_".join(c.lower().replace("-", " ").split()) in usual)
    if twice := next((name for name in names if every.count(name) > 1), None):
        raise OfframpError(f"{path} has several columns called '{twice}'; give each a name of its own")
    if columns is None and len(names) > 1:
        if key == "image":
            return ()  # what is in them says which
        raise OfframpError(f"{path} has the columns {_quoted(names)}; set data.{key} to one of them")
    return names


def _single(frame: pd.DataFrame) -> list[str]:
    """The names that one column has, such as those of no trailing, empty ones."""
    return [str(name) for name in frame.columns[~frame.columns.duplicated(keep=False)]]


def _by_content(frame: pd.DataFrame, path: Path, images: ImageIndex) -> ColumnNames:
    """The column whose first cells name images."""
    naming, faults = [], []
    for name in _single(frame) if len(frame) else ():
        try:
            naming += [name] if all(map(images.of, frame[name].head(20))) else []
        except OfframpError as error:  # paths of another machine, say, beside a column of names
            faults.append(error)
    if faults and not naming:
        raise faults[0]
    full = [name for name in naming if frame[name].map(has_ending).all()]
    usual = [name for name in naming if _by_usual_name(frame[[name]], path, "image", None)]
    sure = next((names for names in (naming, full, usual) if len(names) == 1), None)
    if sure is None:
        which = f"the columns {_quoted(naming)} name images"
        raise OfframpError(
            f"{path}: {which if naming else 'no column names images there'}; set data.image to one of "
            f"{_quoted(frame.columns)}, or data.images to their folder"
        )
    return tuple(sure)


def _remaining(
    frame: pd.DataFrame, path: Path, names: dict[str, ColumnNames], several: bool
) -> ColumnNames:
    """The columns of classes, where none has a usual name: several of 0 and 1, or what is left over."""
    used = {name for columns in names.values() for name in columns}
    left = [c for c in _single(frame) if c not in used]
    one_hot = [c for c in left if frame[c].isin(ONE_HOT).all()]
    ones = frame[one_hot].isin(TRUE).sum(axis=1)
    if len(one_hot) > 1 and (several or ((ones <= 1).all() and ones.mean() > 0.5)):
        return tuple(one_hot)
    words = [c for c in left if pd.to_numeric(frame[c], errors="coerce").isna().all()]
    columns = left if len(left) == 1 else words
    if len(columns) != 1:
        raise OfframpError(
            f"{path} does not say which column is the class; set data.label to one of "
            f"{_quoted(left or frame.columns)}"
        )
    return tuple(columns)


def _classes(frame: pd.DataFrame, path: Path, label: ColumnNames) -> pd.Series:
    """The name of each line's class; empty where it has none."""
    if len(label) == 1:
        return frame[label[0]].str.strip()
    truth = frame[list(label)].isin(TRUE)
    strange = ~(frame[list(label)].isin(ONE_HOT).all(axis=1) & (truth.sum(axis=1) <= 1))
    if strange.any():
        line = int(strange.to_numpy().argmax()) + 2
        raise OfframpError(
            f"{path} line {line} has not one 1 among 0s in {_quoted(label)}; one class an image is "
            "needed; set data.label to one column, or data.several: true for several labels an image"
        )
    return truth.idxmax(axis=1).where(truth.any(axis=1), "")


def _label_sets(frame: pd.DataFrame, path: Path, label: ColumnNames) -> pd.Series:
    """The names of each line's labels, a tuple, which may be empty."""
    if len(label) > 1:
        marks = frame[list(label)]
        for line, column in np.argwhere(~marks.isin(ONE_HOT).to_numpy()).tolist():
            raise OfframpError(
                f"{path} line {line + 2} has '{marks.iloc[line, column]!s}' in '{label[column]}'; write "
                "0 or 1 into each column of labels, or leave the line out"
            )
        yes = marks.isin(TRUE).to_numpy()
        return pd.Series([tuple(np.array(label)[row].tolist()) for row in yes], frame.index)
    cells = [str(cell) for cell in frame[label[0]]]
    mark = next((m for m in LISTED if any(m in cell for cell in cells)), LISTED[0])
    words = [dict.fromkeys(word.strip() for word in cell.split(mark)) for cell in cells]
    sets = [tuple(word for word in each if word.lower() not in NOTHING) for each in words]
    return pd.Series(sets, frame.index)


def read(path: Path, images: ImageIndex | None = None, lists: bool = False) -> pd.DataFrame:
    """A table, all of it text, empty where nothing is written.

    Columns that hold no text, numbers or truth values are left out.

    Args:
        path: The file.
        images: Where its first line names one of these, it has no names of columns, which are then
            `column 1`, `column 2`, ….
        lists: Whether to take columns of lists of names, each as one text.

    Raises:
        OfframpError: naming the file, where it cannot be read.
    """
    try:
        content = read_regular(path, bounds.TABLE)
        if path.suffix.lower() == ".parquet":
            return _parquet(content, lists)
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            return _json_lines(content.decode("utf-8-sig"), lists)
        first = re.split(rb"[\r\n]", content, maxsplit=1)[0].decode("utf-8-sig").strip()
        separator = next((each for each in SEPARATORS if each in first), ",")
        frame = pd.read_csv(
            io.BytesIO(content),
            sep=separator,
            header=None,
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
            encoding="utf-8-sig",
        )
    # Errors of pandas are ValueErrors.
    except (ValueError, KeyError, OSError, pa.ArrowException) as error:
        reason = in_line(error)
        raise OfframpError(
            f"{path} cannot be read as a table ({reason}); correct or restore it"
        ) from error
    if images is not None and any(has_ending(c) and images.of(c) is not None for c in frame.iloc[0]):
        frame.columns = [f"column {n}" for n in range(1, len(frame.columns) + 1)]
        return frame
    frame.columns = [str(name).strip() for name in frame.iloc[0]]
    return frame.iloc[1:].reset_index(drop=True)


def has_ending(cell: str) -> bool:
    """Whether it ends as image files do."""
    return PurePosixPath(cell.strip()).suffix.lower() in SUFFIXES


def _parquet(content: bytes, lists: bool) -> pd.DataFrame:
    rows = parquet.read(content)
    readable = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
    )
    columns = {}
    for name in rows.column_names:
        kind = rows[name].type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        listed = lists and pa.types.is_list(kind) and pa.types.is_string(kind.value_type)
        if listed or any(test(kind) for test in readable):
            columns[name] = [_text(cell) for cell in rows[name].to_pylist()]
    return pd.DataFrame(columns, dtype=str)


def _json_lines(content: str, lists: bool) -> pd.DataFrame:
    # Not `splitlines`: JSON's text may hold other ends of lines, such as U+2028, as they are.
    texts = content.split("\n")
    rows = [from_text(text) for text in texts if text.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no object")
    apart = dict if lists else (dict, list)
    simple = [{k: _text(v) for k, v in row.items() if not isinstance(v, apart)} for row in rows]
    return pd.DataFrame(simple, dtype=str).fillna("")


def _text(cell: object) -> str:
    if isinstance(cell, list):
        return LISTED[0].join(map(str, cell))
    return "" if cell is None or cell != cell else str(cell)


def tables(root: Path) -> Iterator[Path]:
    """The tables in a folder or directly below it that name images of it."""
    images = ImageIndex(root)
    for path in sorted((*root.iterdir(), *(p for place in folders(root) for p in place.iterdir()))):
        if path.suffix.lower() in TABLES and path.is_file():
            try:
                head = read(path, images).head(3)
                if any(all(map(images.of, head[name])) for name in head if len(head)):
                    yield path
            except OfframpError:
                continue


def _quoted(names: Iterable[object]) -> str:
    return ", ".join(f"'{name}'" for name in names)


TABLE = DataSource(table, FETCH)
