"""Small disks for tests."""

from __future__ import annotations

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
