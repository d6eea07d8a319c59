"""Any folder of images: `split/class/image`, or `class/image`, which is split by content."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch

from offramp.data.images.files import SPLIT_FOLDERS, SUFFIXES, Files, check_folder, class_files, folders
from offramp.data.raw import DataSource, RawData, RawSplit
from offramp.data.sources.table import ImageIndex, lines, tables
from offramp.data.splits import split_off
from offramp.errors import OfframpError
from offramp.units import counted

FETCH = "images, so that it holds train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE"


def folder(root: Path, group: str | None = None, test_share: float | None = None) -> RawData:
    """Image files in folders named after their classes, in alphabetical order.

    Where `train/` holds class folders, it and its neighbors `test/`, `val/` and `calibration/` are
    the splits. One of these may hold its images in a single folder beside a table that says their
    classes, as Tiny-ImageNet's `val/`; without a table it is passed over. Otherwise the class folders
    lie in `root`, and a hash of the files' content, or of their group, makes the test split: equal
    images stay together, renaming changes nothing, and no seed does.

    Args:
        root: The folder.
        group: A regular expression that finds, in a file's path below the class folder, what belongs
            together, such as the patient: its groups joined, or all it matches. No group is ever split.
        test_share: So much of each class of train is the test split that is not there; 0.2 by default
            where `root` holds the classes.

    Raises:
        OfframpError: naming the folder or file that is wrong.
    """
    check_folder(root, FETCH)
    places = _places(root)
    tabled, bare = _without_classes(places)
    places = {name: place for name, place in places.items() if name not in bare}
    classes = _classes({n: p for n, p in (places or {"train": root}).items() if n not in tabled})
    finder = _finder(group, root)
    parts, passed = {}, []
    for name, place in (places or {"train": root}).items():
        if name in tabled:
            files, labels, remark = _by_table(root, tabled[name], classes)
            passed += remark
        else:
            files, labels = class_files(root, place, classes)
        depth = len(place.relative_to(root).parts) + (
            name not in tabled
        )  # folders above what is searched
        groups = finder and tuple(finder(path, path.split("/", depth)[-1]) for path in files.ids)
        parts[name] = RawSplit(files, labels, groups)
    if "test" in places and test_share is not None:
        raise OfframpError(f"{places['test']} is the test split; leave data.test_share out")
    if not places and test_share is None:
        test_share = 0.2
    if test_share is not None:
        parts |= split_off(parts["train"], test_share)
    provenance = {"root": str(root), "files": {name: len(part.labels) for name, part in parts.items()}}
    held_out = (parts.get("validation"), parts.get("calibration"))
    remarks = (*(f"{place} has no classes and is passed over" for place in bare.values()), *passed)
    return RawData(
        parts["train"],
        parts.get("test"),
        classes,
        *held_out,
        provenance,
        remarks=remarks,
        cut_off=test_share is not None,
    )


def _places(root: Path) -> dict[str, Path]:
    """The folder of each split; empty where `root` holds classes. No classes are called train, test and
    the like, all of them: such folders without classes in them are splits too."""
    places: dict[str, Path] = {}
    every = folders(root)
    for place in every:
        for split, names in SPLIT_FOLDERS.items():
            if place.name.lower() in names and places.setdefault(split, place) != place:
                raise OfframpError(
                    f"{places[split]} and {place} both name the {split} split; rename one"
                )
    splits = "train" in places and (len(places) == len(every) or folders(places["train"]))
    return places if splits else {}


def _without_classes(places: dict[str, Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Of splits without folders of classes: the table that says the classes, and where there is none."""
    tabled, bare = {}, {}
    for split, place in places.items():
        if split != "train" and {path.name for path in folders(place)} <= {"images"}:
            paths = list(tables(place))
            if len(paths) == 1:
                tabled[split] = paths[0]
            else:
                bare[split] = place
    return tabled, bare


def _by_table(
    root: Path, table: Path, classes: tuple[str, ...]
) -> tuple[Files, torch.Tensor, list[str]]:
    """The files that a table names, their class numbers [N], and a line on classes that train lacks."""
    rows, _ = lines(table, ImageIndex(root, table.parent.relative_to(root).parts[0]))
    with_class = rows[rows["class"].isin(classes)]
    odd = sorted(set(rows["class"]) - set(classes))
    if not len(with_class):
        raise OfframpError(f"{table} has no class that train has, but '{odd[0]}'; correct it")
    number = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([number[name] for name in with_class["class"]])
    remarks = [
        f"{counted(len(rows) - len(with_class), 'image')} in {table.name} passed over, of "
        f"{counted(len(odd), 'class', 'classes')} that train has not ('{name}' first)"
        for name in odd[:1]
    ]
    return Files(root, tuple(with_class["path"])), labels, remarks


def _classes(places: dict[str, Path]) -> tuple[str, ...]:
    names = {split: [p.name for p in folders(place)] for split, place in places.items()}
    train = names["train"]
    if len(train) < 2:
        table = next(tables(places["train"]), None)
        image = next(
            (p for p in sorted(places["train"].iterdir()) if p.suffix.lower() in SUFFIXES), None
        )
        remedy = f"say table:{table}, which names images and classes" if table else f"put {FETCH}"
        if image and not table:  # whose name may tell the class
            file = places["train"] / "labels.csv"
            remedy += (
                f"; or write {file} with the line path,class and then one for each image, such as "
                f"{image.name},{re.split(r'[^A-Za-z]', image.name)[0] or 'cat'}, and say table:{file}"
            )
        raise OfframpError(
            f"{places['train']} holds {len(train)} class folder{'s' * (len(train) != 1)}; "
            f"two or more are needed: {remedy}"
        )
    for split, own in names.items():
        if odd := sorted(set(own) ^ set(train)):
            pair = (places[split], places["train"])
            where, other = pair if odd[0] in own else pair[::-1]
            raise OfframpError(
                f"class folder '{odd[0]}' is in {where} and not in {other}; "
                "give every split the same classes"
            )
    return tuple(train)


def _finder(group: str | None, root: Path) -> Callable[[str, str], str] | None:
    """Names the group of a file by its path below `root`, and by the part of it that is searched."""
    if group is None:
        return None
    try:
        pattern = re.compile(group)
    except (re.error, TypeError) as error:
        raise OfframpError(f"data.group {group!r} is no regular expression ({error})") from error

    def find(path: str, searched: str) -> str:
        match = pattern.search(searched)
        name = match and ("\0".join(g for g in match.groups() if g is not None) or match[0])
        if not name:
            raise OfframpError(
                f"data.group {group!r} finds nothing in {root / path}; make it fit every file"
            )
        return name

    return find


FOLDER = DataSource(folder, FETCH)
