"""A table of labels (CSV, TSV, Parquet or JSON lines) beside the images that it names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import torch

from offramp.data.images.files import Files
from offramp.data.raw import RawData, RawSplit
from offramp.data.sources import table_file, tree
from offramp.errors import OfframpError, nearest
from offramp.hashing import file_digest
from offramp.units import counted

FETCH = "a table that has an image and its class in every line, and the images beside or below it"

USUAL = {  # names that columns have, in lower case and with _ for what joins words
    "image": "image path file filename file_name filepath file_path image_path image_name image_file "
    "image_id img img_path id isic_id id_code image_index name",
    "label": "label labels class target category class_name label_name diagnosis dx species breed y",
    "split": "split set subset partition",
    "group": "patient patient_id group group_id subject subject_id lesion_id case_id",
}


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
) -> RawData:
    """Images that a table names, with their classes; in the order of their paths.

    root: the table, or the folder of table and images.  file: the table, below `root`.
    image, label, split, group: names of columns. Those that are not given are found by their usual
    names, or by what is in them, where there is one answer; split and group may be missing.
    Cells of `image` are paths below the folder, the end of one, or names with or without ending.
    label: several columns of 0 and 1, one of which is 1 in every line, are a class each; lines without a
    label are left out.  Cells of `split` are train, val, test or calibration, as `folder` spells them.
    images: the folder, below `root`, that is meant, where others hold images of the same names.
    test_share: of a table without a test split, as of `folder`.
    partial: take the images that are there, where the table names others too.

    Raises OfframpError naming the file, column or cell that is wrong.
    """
    path = _path(root, file)
    home = root if root is not None and file is not None else path.parent
    there = table_file.ImageFiles(home, images)
    asked = {"image": image, "label": label, "split": split, "group": group}
    found, remarks = lines(path, there, partial, **asked)
    parts, names = _parts(home, path, found)
    if test_share is not None and "test" in parts:
        raise OfframpError(f"{path} names a test split; leave data.test_share out")
    if "split" not in found and test_share is None:
        test_share = 0.2
    if test_share is not None:
        parts |= tree.split_off(parts["train"], test_share)
    return RawData(
        parts["train"],
        parts.get("test"),
        names,
        parts.get("validation"),
        parts.get("calibration"),
        {"root": str(home), "files": {path.name: {"sha256": file_digest(path)}}},
        remarks=remarks,
    )


def lines(
    path: Path,
    images: table_file.ImageFiles,
    partial: bool = False,
    **asked: str | Sequence[str] | None,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """What a table says: a line for each image, by ascending `path` below the images' root, with its
    `class`, and its `split` and `group` where there are such columns; and what to know of it.
    asked: columns, as of `table`.

    Raises OfframpError as `table` does.
    """
    held = table_file.read(path, images)
    taken = {key: _named(held, path, key, asked.get(key)) for key in USUAL}
    taken["image"] = taken["image"] or _by_content(held, path, images)
    taken["label"] = taken["label"] or _the_rest(held, path, taken)
    classes = _classes(held, path, taken["label"])
    left = classes != ""
    if not left.any():
        raise OfframpError(f"{path} has no line with a label; set data.label to another column")
    held = held[left]
    (column,) = taken["image"]
    found = pd.DataFrame({"class": classes[left]})
    found["path"] = images.all_of(held[column].tolist(), path.name, partial, FETCH)
    for key in ("split", "group"):
        if taken[key]:
            found[key] = held[taken[key][0]].str.strip()
    found = found[found["path"].notna()].drop_duplicates().sort_values("path", ignore_index=True)
    if "group" in found:
        found["group"] = found["group"].where(found["group"] != "", found["path"])
    if len(twice := found["path"][found["path"].duplicated()]):
        raise OfframpError(
            f"{path} names {twice.iloc[0]} in several lines that differ; give every image one line"
        )
    shown = (
        f"{k} is '{v[0]}'" if len(v) == 1 else f"{k} are '{v[0]}' to '{v[-1]}'"
        for k, v in taken.items()
        if v
    )
    remarks = [f"columns of {path.name}: {', '.join(shown)}"]
    if not left.all():
        remarks.append(f"{counted(int((~left).sum()), 'line')} of {path.name} without a label left out")
    return found, tuple(remarks)


def _path(root: Path | None, file: str | None) -> Path:
    if root is None:
        if file is None:
            raise OfframpError(f"data set 'table' needs its table; fetch {FETCH}, and set data.file")
        root, file = Path(file).expanduser(), None
    path = root / file if file else root
    if path.is_dir():
        found = list(table_file.tables(path))
        if len(found) != 1:
            names = ", ".join(str(p.relative_to(path)) for p in found) or "none"
            raise OfframpError(f"{path} should hold one table and holds {names}; set data.file")
        return found[0]
    if not path.is_file():
        raise OfframpError(f"there is no table {path}; fetch {FETCH}, or set data.root and data.file")
    return path


ColumnNames = tuple[str, ...]


def _named(held: pd.DataFrame, path: Path, key: str, given: str | Sequence[str] | None) -> ColumnNames:
    """The columns that are given, or the one of a usual name; none where there is no such one."""
    if given is not None:
        found = (given,) if isinstance(given, str) else tuple(given)
        for name in found:
            if name not in held:
                raise OfframpError(f"{path} has no column '{name}'{nearest(name, _names(held))}")
        _refuse_repeated(held, path, found)
        return found
    usual = USUAL[key].split()
    found = tuple(c for c in _names(held) if "_".join(c.lower().replace("-", " ").split()) in usual)
    _refuse_repeated(held, path, found)
    if key == "image" and len(found) > 1:
        return ()  # what is in them says which
    if len(found) > 1:
        raise OfframpError(f"{path} has the columns {_listed(found)}; set data.{key} to one of them")
    return found


def _refuse_repeated(held: pd.DataFrame, path: Path, names: ColumnNames) -> None:
    """Raises OfframpError for a name that several columns have: it says none of them."""
    if twice := next((name for name in names if list(held.columns).count(name) > 1), None):
        raise OfframpError(f"{path} has several columns called '{twice}'; give each a name of its own")


def _names(held: pd.DataFrame) -> list[str]:
    return [str(name) for name in held.columns]


def _single(held: pd.DataFrame) -> list[str]:
    """The names that one column has, such as those of no trailing, empty ones."""
    return [str(name) for name in held.columns[~held.columns.duplicated(keep=False)]]


def _by_content(held: pd.DataFrame, path: Path, images: table_file.ImageFiles) -> ColumnNames:
    """The column whose first cells name images."""
    found = [name for name in _single(held) if len(held) and all(map(images.of, held[name].head(20)))]
    full = [name for name in found if held[name].map(table_file.has_ending).all()]
    usual = [name for name in found if _named(held[[name]], path, "image", None)]
    sure = next((each for each in (found, full, usual) if len(each) == 1), None)
    if sure is None:
        what = f"the columns {_listed(found)} name images" if found else "no column names images there"
        raise OfframpError(
            f"{path}: {what}; set data.image to one of {_listed(_names(held))}, or data.images to their "
            "folder"
        )
    return tuple(sure)


def _the_rest(held: pd.DataFrame, path: Path, taken: dict[str, ColumnNames]) -> ColumnNames:
    """The columns of classes, where none has a usual name: several of 0 and 1, or what is left over."""
    left = [c for c in _single(held) if c not in {name for found in taken.values() for name in found}]
    truth = [c for c in left if held[c].isin(ONE_HOT).all()]
    ones = held[truth].isin(ONE_HOT[1::2]).sum(axis=1)
    if len(truth) > 1 and (ones <= 1).all() and ones.mean() > 0.5:
        return tuple(truth)
    words = [c for c in left if pd.to_numeric(held[c], errors="coerce").isna().all()]
    found = left if len(left) == 1 else words
    if len(found) != 1:
        raise OfframpError(
            f"{path} does not say which column is the class; set data.label to one of "
            f"{_listed(left or _names(held))}"
        )
    return tuple(found)


ONE_HOT = ("0", "1", "0.0", "1.0", "False", "True", "false", "true")


def _classes(held: pd.DataFrame, path: Path, label: ColumnNames) -> pd.Series:
    """The name of each line's class; empty where it has none."""
    if len(label) == 1:
        return held[label[0]].str.strip()
    truth = held[list(label)].isin(ONE_HOT[1::2])
    strange = ~(held[list(label)].isin(ONE_HOT).all(axis=1) & (truth.sum(axis=1) <= 1))
    if strange.any():
        line = int(strange.to_numpy().argmax()) + 2
        raise OfframpError(
            f"{path} line {line} has not one 1 among 0s in {_listed(label)}; one class an image is "
            "needed, or set data.label to one column"
        )
    return truth.idxmax(axis=1).where(truth.any(axis=1), "")


def _parts(home: Path, path: Path, found: pd.DataFrame) -> tuple[dict[str, RawSplit], tuple[str, ...]]:
    """The splits that lines name, and the names of the classes: numbers in their order."""
    names = sorted(found["class"].unique(), key=_order)
    number = {name: i for i, name in enumerate(names)}
    known = {word: split for split, words in tree.SPLITS.items() for word in words}
    given = found["split"] if "split" in found else pd.Series("train", found.index)
    splits = given.str.lower().map(known)
    if splits.isna().any():
        odd = given[splits.isna()].iloc[0]
        raise OfframpError(
            f"{path} has the split '{odd}'; write {', '.join(tree.SPLITS)}, or set data.split to "
            "another column"
        )
    if not (splits == "train").any():
        raise OfframpError(f"{path} names no image of the training split; write train into it")
    parts = {}
    for split, some in found.groupby(splits):
        labels = torch.tensor([number[name] for name in some["class"]])
        groups = tuple(some["group"]) if "group" in some else None
        parts[str(split)] = RawSplit(Files(home, tuple(some["path"])), labels, groups)
    return parts, tuple(names)


def _order(name: str) -> tuple[int, float, str]:
    return (0, float(name), name) if name.replace(".", "", 1).isdecimal() else (1, 0.0, name)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
