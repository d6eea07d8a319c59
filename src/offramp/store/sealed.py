"""Folders that prove themselves whole. No torch.

A sealed folder has a manifest (`node.json`, `trial.json`) with size and SHA-256 of every other file
and a seal, the SHA-256 of the rest of the manifest.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp.errors import OfframpError
from offramp.escape import printable
from offramp.files import ARRAYS, RECORDS, read_regular
from offramp.hashing import from_text, is_sealed_text, text, with_seal
from offramp.store.place import FileSystem, Place

if TYPE_CHECKING:
    import pandas as pd

SHA256 = re.compile("[0-9a-f]{64}")
REMEDY = "run its study again to make it anew"


class Damaged(OfframpError):
    """A file is missing, cut short or altered: `path` is it, `reason` says how, `remedy` what to do."""

    def __init__(self, path: Place, reason: str, remedy: str = REMEDY) -> None:
        super().__init__(path, reason, remedy)
        self.path = path
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return printable(f"{self.path} {self.reason}; {self.remedy}")


@dataclass(frozen=True)
class Kind:
    """A kind of sealed folder: where it lies, its manifest, its other files."""

    folder: str
    manifest: str
    files: frozenset[str]


@dataclass(frozen=True)
class TableKind:
    """A kind of table. columns: what each holds, as `parquet.HOLDS` says.  key: those in which no two
    rows are alike."""

    columns: Mapping[str, str]
    key: tuple[str, ...]


@dataclass(frozen=True)
class Documents:
    """A kind of sealed document, each a file of its own: where they lie, and the remedy of damage."""

    folder: str
    remedy: str

    def place(self, name: str) -> tuple[str, str]:
        return self.folder, f"{name}.json"

    def read(self, files: FileSystem, name: str) -> dict[str, Any]:
        """All that the document `name` says. Raises Damaged."""
        path = files.path(*self.place(name))
        try:
            data = files.read(*self.place(name))
        except Damaged as error:
            raise Damaged(path, error.reason, self.remedy) from error
        document = parsed(data, path, self.remedy)
        if not isinstance(document, dict) or "seal" not in document:
            raise Damaged(path, "has no seal, as an earlier offramp wrote it", self.remedy)
        if not is_sealed_text(data, document) or document.get("name") != name:
            raise Damaged(path, "does not match its seal", self.remedy)
        return document

    def write(self, files: FileSystem, name: str, fields: Mapping[str, Any]) -> None:
        """Make the document `name`, or replace it."""
        files.write(text(with_seal({**fields, "name": name})), *self.place(name))


def document(name: str, record: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """The sealed manifest of a folder `name` that holds `files`; TypeError as `hashing.with_seal`."""
    sums = {
        file: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for file, content in files.items()
    }
    return with_seal({**record, "name": name, "files": sums})


def write(
    files: FileSystem,
    kind: Kind,
    name: str,
    manifest: Mapping[str, Any],
    content: Mapping[str, bytes],
    over: bool,
) -> bool:
    """Make a folder. over: replace one that may be there; without it, False where somebody else has made
    one by now."""
    whole = {**content, kind.manifest: text(manifest)}
    return files.write_folder(whole, kind.folder, name, over=over)


def read(files: FileSystem, kind: Kind, name: str) -> dict[str, Any]:
    """The manifest. Raises Damaged unless it is sealed and of this folder; reads no other file."""
    place = files.path(kind.folder, name, kind.manifest)
    data = files.read(kind.folder, name, kind.manifest)
    manifest = parsed(data, place)
    if not isinstance(manifest, dict) or not is_sealed_text(data, manifest):
        raise Damaged(place, "does not match its seal")
    sums = manifest.get("files")
    if manifest.get("name") != name or not isinstance(sums, dict) or sums.keys() != kind.files:
        raise Damaged(place, f"does not describe '{name}'")
    for file, sum_ in sums.items():
        sized = isinstance(sum_, dict) and isinstance(sum_.get("bytes"), int)
        if not (sized and SHA256.fullmatch(str(sum_.get("sha256")))):
            raise Damaged(place, f"has neither size nor SHA-256 of {file}")
    return manifest


def is_whole(files: FileSystem, kind: Kind, name: str) -> bool:
    """Whether the manifest is sealed and every file has its size."""
    try:
        sums = read(files, kind, name)["files"].items()
    except Damaged:
        return False
    return all(
        files.length(*files.sealed(sum_["sha256"], kind.folder, name, file)) == sum_["bytes"]
        for file, sum_ in sums
    )


def content(files: FileSystem, kind: Kind, name: str, file: str) -> bytes:
    """One file of the folder. Raises Damaged unless its size and SHA-256 are the manifest's."""
    sums = read(files, kind, name)["files"][file]
    place = files.sealed(sums["sha256"], kind.folder, name, file)
    path, data = files.path(*place), b""
    # On a disk it is measured before it is read; an object's length would cost a request.
    length = files.length(*place) if isinstance(path, Path) else None
    if length in (None, sums["bytes"]):
        data = files.read(*place)
        length = len(data)
    if length != sums["bytes"]:
        raise Damaged(path, f"has {length} bytes instead of {sums['bytes']}")
    if hashlib.sha256(data).hexdigest() != sums["sha256"]:
        raise Damaged(path, "does not match its SHA-256")
    return data


def verify(files: FileSystem, kind: Kind, name: str) -> dict[str, Any]:
    """The manifest, after reading every file. Raises Damaged naming the first bad one."""
    manifest = read(files, kind, name)
    for file in sorted(kind.files):
        content(files, kind, name, file)
    return manifest


def read_json(path: Path, remedy: str = REMEDY) -> Any:
    """The value in a JSON file. Raises Damaged."""
    return parsed(read_bytes(path, remedy), path, remedy)


def parsed(data: bytes, path: Place, remedy: str = REMEDY) -> Any:
    """The value in a JSON file's bytes. Raises Damaged."""
    try:
        return from_text(data)
    except ValueError as error:
        raise Damaged(path, "is not JSON", remedy) from error


def table(data: bytes, path: Place, kind: TableKind, remedy: str = REMEDY) -> pd.DataFrame:
    """The table in a Parquet file's bytes; its index is not kept. Raises Damaged, also where it is none
    of its kind."""
    from offramp import parquet  # slow to import, and manifests can do without

    # Not pandas' own reader, which looks for file systems and folders of parts: three times as long.
    try:
        read = parquet.read(data)
        wrong = parquet.other_than(read, kind.columns)
        frame: pd.DataFrame = read.to_pandas()
    except Exception as error:  # pyarrow raises whatever it likes on damaged bytes
        reason = f" ({error})" if isinstance(error, parquet.TooLarge) else ""
        raise Damaged(path, f"is no readable Parquet file{reason}", remedy) from error
    if wrong is None and frame.duplicated(list(kind.key)).any():
        wrong = "has rows that say the same"
    if wrong is not None:
        raise Damaged(path, wrong, remedy)
    return frame


def read_bytes(path: Path, remedy: str = REMEDY) -> bytes:
    """A file's bytes. Raises Damaged only where they are gone, and for what was put in their place: a
    pipe, a device, more than a record or an array has. A file that may not be read, or not now for lack
    of handles, must not be thrown away, and raises a plain OfframpError."""
    try:
        return read_regular(path, RECORDS if path.suffix == ".json" else ARRAYS)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(path, "is missing", remedy) from error
    except OSError as error:
        if error.errno == errno.EIO:
            raise Damaged(path, "lies on a bad spot of the disk", remedy) from error
        if error.errno in (errno.EINVAL, errno.EFBIG, errno.ENXIO):  # the last of a socket
            raise Damaged(path, f"cannot be read ({error.strerror})", remedy) from error
        raise OfframpError(f"cannot read {path} ({error.strerror}); allow it and run again") from error
