"""Any folder of images: `split/class/image`, or `class/image`, which is split by content."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from offramp.data.images.files import Files
from offramp.data.raw import RawData, RawSplit
from offramp.data.sources import tree
from offramp.data.splits import by_hash, together
from offramp.errors import OfframpError

FETCH = "images, so that it holds train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE"

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "calibration": ("calibration", "calib"),
    "test": ("test", "testing"),
}


def folder(root: Path, group: str | None = None, test_share: float | None = None) -> RawData:
    """Image files in folders named after their classes, in alphabetical order.

    Where `train/` holds class folders, it and its neighbors `test/`, `val/` and `calibration/` are
    the splits; with `test_share`, so much of each class of `train/` is the test split that is not there.
    Otherwise the class folders lie in `root`, and `test_share` is 0.2. A hash of the files' content
    makes that split, so that equal images stay together, renaming changes nothing, and no seed does;
    with `group`, a hash of the group.

    group: a regular expression that finds, in a file's path below the class folder, what belongs
    together, such as the patient: its groups joined, or all it matches. No group is ever split.

    Raises OfframpError naming the folder or file that is wrong.
    """
    tree.check_folder(root, FETCH)
    finder = _finder(group)
    places = _places(root)
    classes = _classes(places or {"train": root})
    if places:
        listed = {name: _listed(root, place, classes, finder) for name, place in places.items()}
        if "test" in places and test_share is not None:
            raise OfframpError(f"{places['test']} is the test split; leave data.test_share out")
    else:
        listed = {"train": _listed(root, root, classes, finder)}
        test_share = 0.2 if test_share is None else test_share
    parts = {name: RawSplit(one.files, one.labels, one.groups) for name, one in listed.items()}
    if test_share is not None:
        whole = listed["train"]
        rows = torch.arange(len(whole.labels))
        contents = whole.files.digests(rows)
        test = by_hash(whole.labels, together(whole.groups or contents, contents), test_share)
        parts |= {"train": whole.only(rows[~test]), "test": whole.only(rows[test])}
    provenance = {"root": str(root), "files": {name: len(part.labels) for name, part in parts.items()}}
    held_out = (parts.get("validation"), parts.get("calibration"))
    return RawData(parts["train"], parts.get("test"), classes, *held_out, provenance)


def _places(root: Path) -> dict[str, Path]:
    """The folder of each split; empty where `root` holds classes."""
    found: dict[str, Path] = {}
    for place in tree.folders(root):
        for split, names in SPLITS.items():
            if place.name.lower() in names:
                if split in found:
                    raise OfframpError(
                        f"{found[split]} and {place} both name the {split} split; rename one"
                    )
                found[split] = place
    if "train" not in found or not tree.folders(found["train"]):
        return {}
    return found


def _classes(places: dict[str, Path]) -> tuple[str, ...]:
    names = {split: [p.name for p in tree.folders(place)] for split, place in places.items()}
    train = names["train"]
    if len(train) < 2:
        raise OfframpError(
            f"{places['train']} holds {len(train)} class folder{'s' * (len(train) != 1)}; "
            f"two or more are needed: put {FETCH}"
        )
    for split, found in names.items():
        if odd := sorted(set(found) ^ set(train)):
            where = places[split] if odd[0] in found else places["train"]
            other = places["train"] if odd[0] in found else places[split]
            raise OfframpError(
                f"class folder '{odd[0]}' is in {where} and not in {other}; "
                "give every split the same classes"
            )
    return tuple(train)


@dataclass(frozen=True, eq=False)
class _Listed:
    """The files of a split, their labels [N], and what each shows where that is asked for."""

    files: Files
    labels: Tensor
    groups: tuple[str, ...] | None

    def only(self, rows: Tensor) -> RawSplit:
        groups = self.groups and tuple(self.groups[row] for row in rows.tolist())
        return RawSplit(self.files.only(rows), self.labels[rows], groups)


def _listed(
    root: Path, place: Path, classes: tuple[str, ...], finder: re.Pattern[str] | None
) -> _Listed:
    files = tree.class_files(root, place, classes)
    ids = tuple(name for label in classes for name in files[label])
    labels = torch.repeat_interleave(torch.tensor([len(files[label]) for label in classes]))
    groups = None
    if finder is not None:
        depth = len((place / "class").relative_to(root).parts)
        groups = tuple(_group(finder, root, name, name.split("/", depth)[-1]) for name in ids)
    return _Listed(Files(root, ids), labels, groups)


def _finder(group: str | None) -> re.Pattern[str] | None:
    if group is None:
        return None
    try:
        return re.compile(group)
    except (re.error, TypeError) as error:
        raise OfframpError(f"data.group {group!r} is no regular expression ({error})") from error


def _group(finder: re.Pattern[str], root: Path, name: str, below: str) -> str:
    match = finder.search(below)
    found = match and ("\0".join(g for g in match.groups() if g is not None) or match[0])
    if not found:
        raise OfframpError(
            f"data.group {finder.pattern!r} finds nothing in {root / name}; make it fit every file"
        )
    return found
