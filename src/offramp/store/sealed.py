"""Folders that prove themselves whole: the file work below the store. No torch.

A sealed folder has a manifest (`node.json`, `trial.json`) with size and SHA-256 of every other file
and a seal, the SHA-256 of the rest of the manifest. It appears by one rename, complete and flushed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offramp.errors import OfframpError, Unwritable
from offramp.files import new_folder, unlinked
from offramp.hashing import is_sealed as is_sealed
from offramp.hashing import is_sealed_text
from offramp.hashing import text as text
from offramp.hashing import with_seal as with_seal

_MENDABLE = {  # by the user: a place that is not theirs, or none
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
}
REMEDY = "run its study again to make it anew"


class Damaged(OfframpError):
    """A file is missing, cut short or altered: `path` is it, `reason` says how, `remedy` what to do."""

    def __init__(self, path: Path, reason: str, remedy: str = REMEDY) -> None:
        super().__init__(path, reason, remedy)
        self.path = path
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.path} {self.reason}; {self.remedy}"


@dataclass(frozen=True)
class Kind:
    """A kind of sealed folder: where it lies, its manifest, its other files."""

    folder: str
    manifest: str
    files: frozenset[str]


def document(name: str, record: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """The sealed manifest of a folder `name` that holds `files`. Raises TypeError for a value that
    is none of JSON's types (tuples, sets and dataclasses are turned into them)."""
    sums = {
        file: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for file, content in files.items()
    }
    return with_seal({**record, "name": name, "files": sums})


def write(
    path: Path, kind: Kind, manifest: dict[str, Any], files: Mapping[str, bytes], staging: Path
) -> None:
    """Make the folder `path`, or put it in the place of one that is there."""
    with writing(path), new_folder(path, staging) as folder:
        for file, content in files.items():
            (folder / file).write_bytes(content)
        (folder / kind.manifest).write_bytes(text(manifest))


def read(path: Path, kind: Kind) -> dict[str, Any]:
    """The manifest. Raises Damaged unless it is sealed and of this folder, OfframpError where it is a
    link; reads no other file."""
    place = unlinked(path, kind.manifest)
    data = read_bytes(place)
    manifest = _json(data, place)
    if not isinstance(manifest, dict) or not is_sealed_text(data, manifest):
        raise Damaged(place, "does not match its seal")
    if manifest.get("name") != path.name or manifest.get("files", {}).keys() != kind.files:
        raise Damaged(place, f"does not describe '{path.name}'")
    return manifest


def is_whole(path: Path, kind: Kind) -> bool:
    """Whether the manifest is sealed and every file has its size."""
    try:
        files = read(path, kind)["files"].items()
        return all(unlinked(path, file).stat().st_size == sums["bytes"] for file, sums in files)
    except (Damaged, FileNotFoundError):
        return False


def content(path: Path, kind: Kind, file: str) -> bytes:
    """One file of the folder. Raises Damaged unless its size and SHA-256 are the manifest's, and
    OfframpError where it is a link."""
    sums = read(path, kind)["files"][file]
    data = read_bytes(unlinked(path, file))
    if len(data) != sums["bytes"]:
        raise Damaged(path / file, f"has {len(data)} bytes instead of {sums['bytes']}")
    if hashlib.sha256(data).hexdigest() != sums["sha256"]:
        raise Damaged(path / file, "does not match its SHA-256")
    return data


def verify(path: Path, kind: Kind) -> dict[str, Any]:
    """The manifest, after reading every file. Raises Damaged naming the first bad one."""
    manifest = read(path, kind)
    for file in sorted(kind.files):
        content(path, kind, file)
    return manifest


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises Damaged."""
    return _json(read_bytes(path), path)


def _json(data: bytes, path: Path) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise Damaged(path, "is not JSON") from error


def read_bytes(path: Path) -> bytes:
    """A file's bytes. Damaged only where the bytes are gone: a file that may not be read, or not
    now for want of handles, is not to be thrown away, and raises a plain OfframpError."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(path, "is missing") from error
    except OSError as error:
        if error.errno == errno.EIO:
            raise Damaged(path, "lies on a bad spot of the disk") from error
        raise OfframpError(f"cannot read {path} ({error.strerror}); allow it and run again") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line why `path` could not be written, where the user can mend it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unwritable(
                f"the disk is full while writing {path}; free space and run the same command again"
            ) from error
        if error.errno in _MENDABLE:
            raise Unwritable(
                f"cannot write {path} ({error.strerror}); allow it or choose another folder"
            ) from error
        raise


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Of `path` and all below it; what vanishes meanwhile is passed over. No link is followed."""
    walk = [] if path.is_symlink() else os.walk(path)
    below = [Path(at, name) for at, dirs, files in walk for name in (*dirs, *files)]
    for place in (path, *below):
        with suppress(FileNotFoundError):
            yield place.lstat()


def size(path: Path) -> int:
    """Bytes of the files in `path`, or of the file that it is."""
    return sum(s.st_size for s in _stats(path) if stat.S_ISREG(s.st_mode))


def age_s(path: Path) -> float:
    """Seconds since anything in `path` was last written."""
    now = time.time()
    return now - max((s.st_mtime for s in _stats(path)), default=now)
