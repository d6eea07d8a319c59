"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there replaces `path` at once on success and
    is removed on any failure, a full disk included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, staging: Path) -> Iterator[Path]:
    """A temporary folder in `staging` (on the same file system) that becomes `path` by one rename
    when the block succeeds. A `path` that is already there is moved away first."""
    staging.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = staging / f"{path.name}.{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        yield temporary
        for child in temporary.iterdir():
            sync(child)
        sync(temporary)
        if path.exists():
            discard(path, staging)
        temporary.replace(path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def discard(path: Path, staging: Path) -> None:
    """Take a folder away by one rename, then delete it: a reader sees all of it or none."""
    staging.mkdir(parents=True, exist_ok=True)
    grave = staging / f"{path.name}.{uuid.uuid4().hex}"
    path.replace(grave)
    shutil.rmtree(grave, ignore_errors=True)


def inside(root: Path, name: str) -> Path:
    """`root/name`, refused when it would leave `root` (`..`, an absolute path, a link)."""
    base = root.resolve()
    path = (base / name).resolve()
    if not path.is_relative_to(base):
        raise ValueError(f"{name!r} leaves the folder {root}")
    return path
