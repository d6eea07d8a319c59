"""A bounded folder of this machine that keeps what was fetched from elsewhere.

Each file begins with the SHA-256 of the rest, so what was damaged here is fetched again. Nothing that
happens to it is an error: whoever cannot have it fetches.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from contextlib import suppress
from pathlib import Path

from offramp import units
from offramp.files import home

USUAL = "10GB"
KEPT = 0.9  # of the limit, when it was passed: not each file has all others listed
UNSEEN = 0.02  # of the limit that a process adds before it looks what others have added


class LocalCache:
    """Bytes by name. limit: bytes, of all processes together; 0 keeps nothing."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._left = 0.0  # bytes to add before the next look

    def get(self, name: str) -> bytes | None:
        """What was kept under a name; None where it is not there, or not as it was."""
        path = self._path(name)
        try:
            whole = path.read_bytes()
        except OSError:
            return None
        data = whole[64:]
        if hashlib.sha256(data).hexdigest().encode() != whole[:64]:
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)  # what was read last goes last
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep it, and let go what was not read for longest if there is too much."""
        if len(data) > KEPT * self._limit:
            return
        path = self._path(name)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary.write_bytes(hashlib.sha256(data).hexdigest().encode() + data)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            return
        self._left -= len(data)
        if self._left < 0:
            self._left = min(UNSEEN * self._limit, self._limit - self._trimmed())

    def _trimmed(self) -> int:
        """Bytes of all that is there, once there is not too much."""
        files = sorted(self._files())
        size = sum(size for _, size, _ in files)
        if size <= self._limit:
            return size
        for _, bytes_, path in files:
            if size <= KEPT * self._limit:
                break
            with suppress(OSError):
                path.unlink()
            size -= bytes_
        return size

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each was last read, its bytes and path."""
        files = []
        with suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    about = entry.stat(follow_symlinks=False)
                    files.append((about.st_mtime, about.st_size, Path(entry.path)))
        return files

    def _path(self, name: str) -> Path:
        return self._folder / hashlib.sha256(name.encode()).hexdigest()


def own() -> LocalCache:
    """The user's: below OFFRAMP_CACHE, else XDG_CACHE_HOME or ~/.cache; OFFRAMP_CACHE_SIZE of it.

    Raises OfframpError where OFFRAMP_CACHE_SIZE is no size.
    """
    named = os.environ.get("OFFRAMP_CACHE")
    folder = Path(named) if named else home("XDG_CACHE_HOME", ".cache")
    size = os.environ.get("OFFRAMP_CACHE_SIZE", USUAL)
    return LocalCache(folder / "store", int(units.parse(size, units.SIZE, "OFFRAMP_CACHE_SIZE")))
