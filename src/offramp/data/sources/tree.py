"""Folders of images by class: `class/…/image`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from offramp.data.images.files import SUFFIXES, Files
from offramp.data.raw import RawSplit
from offramp.data.splits import by_hash, together
from offramp.errors import OfframpError
from offramp.files import inside

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "calibration": ("calibration", "calib"),
    "test": ("test", "testing"),
}


def folders(path: Path) -> list[Path]:
    """The folders in a folder, by name; hidden ones are passed over."""
    return sorted(p for p in path.iterdir() if p.is_dir() and _shown(p.name))


def class_files(root: Path, split: Path, classes: Sequence[str]) -> dict[str, list[str]]:
    """The image files of each class of `split`, a folder at or below `root`, as paths below `root`
    in the order of their names.

    Raises OfframpError for a class without images and a link that leaves `root`.
    """
    found = {}
    for name in classes:
        files = sorted(image_files(root, split / name))
        if not files:
            raise OfframpError(f"class folder {split / name} holds no images; add some or remove it")
        found[name] = files
    return found


def image_files(root: Path, folder: Path) -> Iterator[str]:
    """Paths below `root` of the image files in `folder`, at any depth; hidden ones are passed over.

    Raises OfframpError for a link that leaves `root`.
    """
    check_link(root, folder)
    waiting = [folder]
    seen = set()
    while waiting:
        here = waiting.pop()
        if here.resolve() in seen:  # links may go round in circles
            continue
        seen.add(here.resolve())
        with os.scandir(here) as entries:
            for entry in entries:
                if not _shown(entry.name):
                    continue
                path = here / entry.name
                if entry.is_symlink():
                    check_link(root, path)
                if entry.is_dir():
                    waiting.append(path)
                elif path.suffix.lower() in SUFFIXES:
                    if not entry.is_file() and path.exists():  # the first asks no disk
                        raise OfframpError(f"{path} is a pipe or a device, and no file; remove it")
                    yield path.relative_to(root).as_posix()


def check_folder(root: Path, fetch: str) -> None:
    """Raises OfframpError, saying what to fetch, unless `root` is a folder."""
    if not root.is_dir():
        raise OfframpError(f"there is no folder {root}; fetch {fetch}, or set data.root")


def check_link(root: Path, path: Path) -> None:
    """Raises OfframpError where `path`, below `root`, leads out of it over a link, or nowhere."""
    try:
        inside(root, str(path.relative_to(root)))
    except OfframpError as error:
        raise OfframpError(
            f"{path} is a link that leads round in a circle; copy the file itself into the folder"
        ) from error
    except ValueError as error:
        raise OfframpError(
            f"{path} is a link that leaves {root}; copy the file itself into the folder"
        ) from error


def split_off(train: RawSplit, share: float) -> dict[str, RawSplit]:
    """`train` in two: `test` gets that share of each class, chosen by hashes of files, or of groups, and
    `train` the rest. Raises OfframpError where each class is one image or one group."""
    files, rows = train.images, torch.arange(len(train.labels))
    assert isinstance(files, Files)
    contents = files.digests(rows)
    test = by_hash(train.labels, together(train.groups or contents, contents), share)
    if not test.any():
        kind = "images of one group" if train.groups else "one image"
        raise OfframpError(
            f"no test split can be made of {files.root}: each class has {kind} only; add more, or a "
            "test split"
        )

    def only(chosen: Tensor) -> RawSplit:
        groups = train.groups and tuple(train.groups[row] for row in chosen.tolist())
        return RawSplit(files.only(chosen), train.labels[chosen], groups)

    return {"train": only(rows[~test]), "test": only(rows[test])}


def _shown(name: str) -> bool:
    return not name.startswith((".", "__"))
