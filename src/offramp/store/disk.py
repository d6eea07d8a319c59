"""The files of a store on a disk of this machine: `filesystem.FileSystem` says what each method does.
No torch.

The root may be a link. A name that leads over one is refused, so that nothing outside is read, written
or removed.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from offramp.errors import OfframpError
from offramp.files import discard, new_folder, replacing, unlinked, writing
from offramp.store.lock_folder import LockFolder
from offramp.store.locks import Lease, Locks
from offramp.store.sealed import read_bytes

LOCKS, STAGING = "locks", "staging"


class Disk:
    """A folder."""

    def __init__(self, root: Path) -> None:
        if root.exists() and not root.is_dir():
            raise OfframpError(f"{root} is not a folder; choose another place for the store")
        self._root = root
        self._locks = Locks(LockFolder(root / LOCKS))

    def path(self, *name: str) -> Path:
        return unlinked(self._root, *name)

    def exists(self, *name: str) -> bool:
        return self.path(*name).exists()

    def is_folder(self, *name: str) -> bool:
        return self.path(*name).is_dir()

    def names(self, *folder: str) -> list[str]:
        return sorted(path.name for path in self.path(*folder).glob("*"))

    def sealed(self, sha256: str, *name: str) -> tuple[str, ...]:  # noqa: ARG002
        return name

    def read(self, *name: str) -> bytes:
        return read_bytes(self.path(*name))

    def length(self, *name: str) -> int | None:
        try:
            return self.path(*name).stat().st_size
        except FileNotFoundError:
            return None

    def size(self, *name: str) -> int:
        return sum(s.st_size for s in _stats(self._at(*name)) if stat.S_ISREG(s.st_mode))

    def age_s(self, *name: str) -> float:
        now = time.time()
        return now - max((s.st_mtime for s in _stats(self._at(*name))), default=now)

    def write(self, data: bytes, *name: str) -> None:
        path = self.path(*name)
        with writing(path), replacing(path) as temporary:
            temporary.write_bytes(data)

    def write_folder(self, files: Mapping[str, bytes], *name: str, over: bool) -> bool:
        path = self.path(*name)
        if not over and path.exists():
            return False
        with writing(path), new_folder(path, self.path(STAGING)) as folder:
            for file, content in files.items():
                (folder / file).write_bytes(content)
        return True

    def remove(self, *name: str) -> None:
        path, staging = self._at(*name), self.path(STAGING)
        with writing(path), suppress(FileNotFoundError):  # somebody else was first
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            elif path.parent == staging:
                shutil.rmtree(path)
            else:
                discard(path, staging)

    def leftovers(self, *folder: str) -> list[tuple[str, ...]]:
        if not folder:
            return [(STAGING, name) for name in self.names(STAGING)]
        return [(*folder, n) for n in self.names(*folder) if n[0] == "." and n.endswith(".tmp")]

    def index(self, least: int = 1) -> int:  # noqa: ARG002
        return 0  # a folder is read at once

    def lock(self, name: str) -> Lease:
        return self._locks.take(name)

    def try_lock(self, name: str) -> Lease | None:
        return self._locks.try_take(name)

    def holder(self, name: str) -> str | None:
        return self._locks.holder(name)

    def gate(self) -> AbstractContextManager[Lease]:
        return self._locks.gate()

    def watch_locks(self) -> None:
        self._locks.watch()

    def locks(self) -> tuple[set[str], list[tuple[str, ...]]]:
        held, free = self._locks.survey()
        return held, [(LOCKS, file) for file in free]

    def _at(self, *name: str) -> Path:
        """Where a name is, which may be a link itself; the root without one."""
        return self.path(*name[:-1]) / name[-1] if name else self._root.resolve()


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Of `path` and all below it; what vanishes meanwhile is passed over. No link is followed."""
    walk = [] if path.is_symlink() else os.walk(path)
    below = [Path(at, name) for at, dirs, files in walk for name in (*dirs, *files)]
    for place in (path, *below):
        with suppress(FileNotFoundError):
            yield place.lstat()
