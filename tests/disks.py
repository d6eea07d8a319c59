"""Small disks for tests, and what may happen to a file on any."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(mount: Path, limits: str) -> Iterator[Path]:
    """A file system in memory, with limits as of `mount -o`; skips where none may be made."""
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", limits, "tmpfs", str(mount)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a small file system here")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def sparse(path: Path) -> None:
    """A file of four terabytes, more than any memory, that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(2**42)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Flip a bit of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)
