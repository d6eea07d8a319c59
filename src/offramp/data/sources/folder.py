"""Any folder of images: `split/class/image`, or `class/image`, which is split by content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from offramp.data.images.files import Files
from offramp.data.raw import RawData, RawSplit
from offramp.data.sources import table_file, tree
from offramp.data.sources.table import lines
from offramp.errors import OfframpError

FETCH = "images, so that it holds train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE"


def folder(root: Path, group: str | None = None, test_share: float | None = None) -> RawData:
    """Image files in folders named after their classes, in alphabetical order.

    Where `train/` holds class folders, it and its neighbors `test/`, `val/` and `calibration/` are
    the splits. One of these may hold its images in a single folder beside a table that says their
    classes, as Tiny-ImageNet's `val/`; without a table it is passed over. With `test_share`, so much of
    each class of `train/` is the test split that is not there. Otherwise the class folders lie in
    `root`, and `test_share` is 0.2. A hash of the files' content makes that split, so that equal images
    stay together, renaming changes nothing, and no seed does; with `group`, a hash of the group.

    group: a regular expression that finds, in a file's path below the class folder, what belongs
    together, such as the patient: its groups joined, or all it matches. No group is ever split.

    Raises OfframpError naming the folder or file that is wrong.
    """
    tree.check_folder(root, FETCH)
    finder = _finder(group)
    places = _places(root)
    tables, bare = _without_classes(places)
    places = {name: place for name, place in places.items() if name not in bare}
    classes = _classes({n: p for n, p in (places or {"train": root}).items() if n not in tables})
    if places:
        parts = {
            name: _tabled(root, tables[name], classes, finder)
            if name in tables
            else _listed(root, place, classes, finder)
            for name, place in places.items()
        }
        if "test" in places and test_share is not None:
            raise OfframpError(f"{places['test']} is the test split; leave data.test_share out")
    else:
        parts = {"train": _listed(root, root, classes, finder)}
        test_share = 0.2 if test_share is None else test_share
    if test_share is not None:
        parts |= tree.split_off(parts["train"], test_share)
    provenance = {"root": str(root), "files": {name: len(part.labels) for name, part in parts.items()}}
    held_out = (parts.get("validation"), parts.get("calibration"))
    remarks = tuple(f"{place} has no classes and is passed over" for place in bare.values())
    return RawData(parts["train"], parts.get("test"), classes, *held_out, provenance, remarks=remarks)


def _places(root: Path) -> dict[str, Path]:
    """The folder of each split; empty where `root` holds classes."""
    found: dict[str, Path] = {}
    for place in tree.folders(root):
        for split, names in tree.SPLITS.items():
            if place.name.lower() in names:
                if split in found:
                    raise OfframpError(
                        f"{found[split]} and {place} both name the {split} split; rename one"
                    )
                found[split] = place
    if "train" not in found or not tree.folders(found["train"]):
        return {}
    return found


def _without_classes(places: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Of splits without folders of classes: the table that says the classes, and where there is none."""
    tables, bare = {}, {}
    for split, place in places.items():
        if split != "train" and {path.name for path in tree.folders(place)} <= {"images"}:
            found = list(table_file.tables(place))
            if len(found) == 1:
                tables[split] = found[0]
            else:
                bare[split] = place
    return tables, bare


def _tabled(
    root: Path, table: Path, classes: tuple[str, ...], finder: re.Pattern[str] | None
) -> RawSplit:
    place = table.parent.relative_to(root).parts[0]
    found, _ = lines(table, table_file.ImageFiles(root, place))
    if odd := sorted(set(found["class"]) - set(classes)):
        raise OfframpError(f"{table} has the class '{odd[0]}', which train has not; correct it")
    number = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([number[name] for name in found["class"]])
    ids = tuple(found["path"])
    groups = finder and tuple(_group(finder, root, name, name.partition("/")[2]) for name in ids)
    return RawSplit(Files(root, ids), labels, groups)


def _classes(places: dict[str, Path]) -> tuple[str, ...]:
    names = {split: [p.name for p in tree.folders(place)] for split, place in places.items()}
    train = names["train"]
    if len(train) < 2:
        table = next(table_file.tables(places["train"]), None)
        remedy = f"say table:{table}, which names images and classes" if table else f"put {FETCH}"
        raise OfframpError(
            f"{places['train']} holds {len(train)} class folder{'s' * (len(train) != 1)}; "
            f"two or more are needed: {remedy}"
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


def _listed(
    root: Path, place: Path, classes: tuple[str, ...], finder: re.Pattern[str] | None
) -> RawSplit:
    files = tree.class_files(root, place, classes)
    ids = tuple(name for label in classes for name in files[label])
    labels = torch.repeat_interleave(torch.tensor([len(files[label]) for label in classes]))
    groups = None
    if finder is not None:
        depth = len((place / "class").relative_to(root).parts)
        groups = tuple(_group(finder, root, name, name.split("/", depth)[-1]) for name in ids)
    return RawSplit(Files(root, ids), labels, groups)


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
