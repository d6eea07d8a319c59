"""The two CIFAR sets (Krizhevsky, 2009), in the two forms in which they come.

Parquet files as on the Hugging Face hub, or the official binary version: records of one or two label
bytes and 3,072 pixels, in `.bin` files or in the `.tar.gz` of them. The official Python version is
pickled, and is never read.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from offramp.data.raw import RawData, RawSplit
from offramp.data.sources import parquet, tree
from offramp.errors import OfframpError, in_line
from offramp.hashing import file_digest
from offramp.units import size

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
OFFICIAL = (50_000, 10_000)
PIXELS = 3 * 32 * 32
LARGEST = 2**30  # bytes of a file in the archive, seven times the official ones


@dataclass(frozen=True)
class Binary:
    """The official binary version of one set.

    name: of the data set.  archive, folder: what it comes in.  train, test: names of its files.
    labels: label bytes of a record.  label: which of them counts.  names: the file of class names.
    """

    name: str
    archive: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: int
    label: int
    names: str


def read(root: Path, binary: Binary, columns: tuple[str, str], fetch: str, official: bool) -> RawData:
    """Whichever form lies in `root`. columns: of images and labels, in Parquet.

    Raises OfframpError naming the file that is missing or wrong, and, where `official`, for counts
    other than 50,000 and 10,000 images.
    """
    files = _binary_files(root, binary)
    raw = _read_binary(root, files, binary) if files else parquet.read(root, *columns, fetch)
    counts = (len(raw.train.labels), len(raw.test.labels) if raw.test else 0)
    if official and counts != OFFICIAL:
        raise OfframpError(
            f"{root} holds {counts[0]:,} training and {counts[1]:,} test images where {binary.name} has "
            "50,000 and 10,000; fetch it again, or set data.official: false to take it as it is"
        )
    return raw


def _binary_files(root: Path, binary: Binary) -> Mapping[str, Path]:
    """The `.bin` files and the file of class names by name, or the one archive as ``; else empty.

    Raises OfframpError where only the pickled version is there, or a part of the binary one.
    """
    if not root.is_dir():
        return {}
    wanted = (*binary.train, *binary.test, binary.names)
    for folder in (root, root / binary.folder):
        found = {name: folder / name for name in wanted if (folder / name).is_file()}
        if any(name.endswith(".bin") for name in found):
            for name in wanted:
                if name not in found:
                    raise OfframpError(f"{folder} lacks {name}; unpack {binary.archive} of {PAGE} again")
            return found
    if (root / binary.archive).is_file():
        return {"": root / binary.archive}
    pickled = [*root.glob("cifar-10*-python*"), *root.glob("cifar-10*-batches-py")]
    if pickled and not any(any((root / f).glob("*.parquet")) for f in parquet.FOLDERS):
        raise OfframpError(
            f"{pickled[0]} is the pickled version, which can run code and is never read; fetch the "
            f"binary version, {binary.archive}, of {PAGE}"
        )
    return {}


def _read_binary(root: Path, files: Mapping[str, Path], binary: Binary) -> RawData:
    for path in files.values():
        tree.check_link(root, path)
    contents = (
        _unpacked(files[""], binary) if "" in files else {n: p.read_bytes() for n, p in files.items()}
    )
    try:
        classes = tuple(contents[binary.names].decode().split())
    except UnicodeDecodeError as error:
        raise OfframpError(f"{root}: {binary.names} is no text; fetch it again") from error
    provenance: dict[str, Any] = {
        "root": str(root),
        "files": {
            path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in files.values()
        },
    }
    train, test = (_records(root, contents, names, binary) for names in (binary.train, binary.test))
    return RawData(train, test, classes, provenance=provenance)


def _unpacked(path: Path, binary: Binary) -> dict[str, bytes]:
    """The files that count, read out of the archive; nothing is written."""
    wanted = (*binary.train, *binary.test, binary.names)
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if name not in wanted or not member.isreg():  # links may go round in circles
                    continue
                if member.size > LARGEST:
                    raise ValueError(f"{name} is to have {size(member.size)}")
                if file := archive.extractfile(member):
                    found[name] = file.read()
            end = archive.fileobj  # gzip's checksum stands there, and only who reads it checks it
            while end is not None and end.read(2**20):
                if end.tell() > LARGEST:
                    raise ValueError(f"it unpacks to more than {size(LARGEST)}")
    except Exception as error:  # tar, gzip, zlib and lzma raise whatever they like on damaged bytes
        reason = in_line(error)  # tarfile takes a line for each compression it tries
        raise OfframpError(f"{path} is no readable archive ({reason}); fetch it again") from error
    for name in wanted:
        if name not in found:
            raise OfframpError(f"{path} lacks {name}; fetch {binary.archive} of {PAGE} again")
    return found


def _records(
    root: Path, contents: Mapping[str, bytes], names: tuple[str, ...], binary: Binary
) -> RawSplit:
    length = binary.labels + PIXELS
    parts = []
    for name in names:
        if not contents[name] or len(contents[name]) % length:
            raise OfframpError(
                f"{root}: {name} has {len(contents[name])} bytes, not records of {length}; "
                "fetch it again"
            )
        parts.append(torch.frombuffer(bytearray(contents[name]), dtype=torch.uint8).view(-1, length))
    records = torch.cat(parts)
    images = records[:, binary.labels :].reshape(-1, 3, 32, 32)
    return RawSplit(images, records[:, binary.label].to(torch.int64))
