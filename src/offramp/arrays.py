"""NumPy's archives of arrays (`.npz`), whoever made them: nothing is unpickled, and no memory is taken
for more than the file can hold."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from offramp.errors import in_line
from offramp.units import size

LARGE, RATIO = 2**30, 200  # an array of more bytes, packed more tightly, is a trap and no data
Header = tuple[tuple[int, ...], np.dtype]


def headers(source: Path | bytes) -> dict[str, Header]:
    """Shape and type of every array, by name; reads no array. Raises ValueError, in one line
    without the file's name, for a damaged archive, and OSError for a file that cannot be opened."""
    return {name: header for name, (header, _) in _read(source, None, whole=False).items()}


def read(source: Path | bytes, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an archive. names: of the arrays to read, if they are in it; None reads all.

    Raises:
        ValueError: In one line without the file's name, for a damaged archive.
        OSError: For a file that cannot be opened.

    >>> file = io.BytesIO()
    >>> np.savez(file, labels=np.arange(3))
    >>> read(file.getvalue())["labels"].tolist()
    [0, 1, 2]
    """
    return {name: array for name, (_, array) in _read(source, names, whole=True).items()}


def check_logits(named: Mapping[str, np.ndarray], exits: int | None) -> None:
    """Raises ValueError, in one line, unless of every split, test among them, there are logits
    [N, exits, C] under its name, and under `NAME_labels` labels [N] below C or [N, C]. exits: None takes
    any number."""
    for split in sorted({"test", *(name.removesuffix("_labels") for name in named)}):
        logits, labels = named.get(split, np.empty(0)), named.get(f"{split}_labels", np.empty(0))
        rows, classes = logits.shape[:1], logits.shape[2:]
        if logits.dtype.kind != "f" or logits.ndim != 3 or exits not in (None, logits.shape[1]):
            raise ValueError(f"its logits of {split} are not numbers of each image, exit and class")
        if split == "test" and not logits.size:
            raise ValueError("it has no logits of test images")
        several = labels.shape == (*rows, *classes)
        if labels.dtype.kind not in "bui" or not (several or labels.shape == rows):
            raise ValueError(f"its labels of {split} are not labels of these logits")
        if not several and ((labels < 0) | (labels >= classes[0])).any():
            raise ValueError(f"its labels of {split} are not labels of these logits")


def digest(array: np.ndarray) -> str:
    """SHA-256, in hex, of its type, shape and numbers."""
    header = f"{array.dtype.str} {array.shape}\n".encode()
    return hashlib.sha256(header + array.tobytes()).hexdigest()


def _read(
    source: Path | bytes, names: Collection[str] | None, whole: bool
) -> dict[str, tuple[Header, np.ndarray]]:
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        length, arrays = file.seek(0, io.SEEK_END), {}
        try:
            with zipfile.ZipFile(file) as archive:
                for entry in archive.infolist():
                    name = entry.filename.removesuffix(".npy")
                    if names is None or name in names:
                        arrays[name] = _array(archive, entry, length, whole)
        except Exception as error:  # zip, zlib, lzma and numpy's header raise whatever they like
            reason = in_line(error)
            raise ValueError(reason) from error
    return arrays


def _array(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, length: int, whole: bool
) -> tuple[Header, np.ndarray]:
    packed, claimed = min(entry.compress_size, length), entry.file_size
    if claimed > max(LARGE, RATIO * packed):
        raise ValueError(f"{entry.filename} unpacks to {size(claimed)}, from {size(packed)}")
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{entry.filename} has a header of version {version[0]}")
        reader = np.lib.format.read_array_header_1_0
        if version == (2, 0):
            reader = np.lib.format.read_array_header_2_0
        shape, _, kind = reader(file)
        if kind.hasobject:
            raise ValueError("it holds pickled objects")
        expected, rest = math.prod(shape) * kind.itemsize, claimed - file.tell()
        if min(shape, default=0) < 0 or expected != rest:
            raise ValueError(f"{entry.filename} should hold {expected:,} bytes and has {rest:,}")
        if not whole:
            return (shape, kind), np.empty(0)
        file.seek(0)
        return (shape, kind), np.lib.format.read_array(file, allow_pickle=False)
