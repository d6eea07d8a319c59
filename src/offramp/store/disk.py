"""The files of a store on a disk of this machine, network file systems included: `place.FileSystem` says
what each method does. No torch.

The root may be a link. A name that leads over one is refused, so that nothing outside is read, written
or removed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from offramp.errors import OfframpError
from offramp.files import discard, new_folder, remove_tree, resolved, unlinked, write_whole, writing
from offramp.store.locks import SIZE, Locks, Owner
from offramp.store.sealed import read_bytes

LOCKS, STAGING = "locks", "staging"


class Disk:
    """A folder."""

    def __init__(self, root: Path) -> None:
        resolved(root)  # refused where links lead in a circle
        if root.exists() and not root.is_dir():
            raise OfframpError(f"{root} is not a folder; choose another place for the store")
        self._root = root
        self._locks = locks = Locks(LockFolder(root / LOCKS))
        self.lock, self.try_lock, self.gate = locks.take, locks.try_take, locks.gate
        self.holder, self.watch_locks = locks.holder, locks.watch

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
        write_whole(path, data)

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
                remove_tree(path)
            else:
                discard(path, staging)

    def leftovers(self, *folder: str) -> list[tuple[str, ...]]:
        if not folder:
            return [(STAGING, name) for name in self.names(STAGING)]
        return [(*folder, n) for n in self.names(*folder) if n[0] == "." and n.endswith(".tmp")]

    def index(self, least: int = 1) -> int:  # noqa: ARG002
        return 0  # a folder is read at once

    def locks(self) -> tuple[set[str], list[tuple[str, ...]]]:
        live, free = self._locks.survey()
        return live, [(LOCKS, file) for file in free]

    def _at(self, *name: str) -> Path:
        """Where a name is, which may be a link itself; the root without one."""
        return self.path(*name[:-1]) / name[-1] if name else resolved(self._root)


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Of `path` and all below it; what vanishes meanwhile, or is too deep for a path, is passed over. No
    link is followed."""
    left = [path]
    while left:
        place = left.pop()
        try:
            about = place.lstat()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
                raise
            continue
        yield about
        if stat.S_ISDIR(about.st_mode):
            with suppress(OSError):
                left += place.iterdir()


class LockFolder:
    """`locks.LockFiles` in a folder."""

    pause_s = 0.0

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self) -> None:
        with writing(unlinked(self._folder.parent, self._folder.name)):
            self._folder.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        names = []
        with writing(self._folder), suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            names = [entry.name for entry in entries]
        return [unlinked(self._folder, name).name for name in names]

    def read(self, name: str) -> bytes | None:
        with self._opened(name, os.O_RDONLY) as handle:
            try:
                return None if handle is None else os.read(handle, SIZE)
            except OSError as error:
                if error.errno == errno.ESTALE:  # NFS: removed since it was opened
                    return None
                if error.errno == errno.EISDIR:
                    return b""
                raise

    def make(self, name: str, owner: Owner) -> Owner:
        path = self._folder / name
        with writing(path), suppress(FileExistsError):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                owner = replace(owner, place=_place(path), inode=os.fstat(handle).st_ino)
                os.write(handle, owner.text())
            except OSError:
                with suppress(OSError):
                    path.unlink()
                raise
            finally:
                os.close(handle)
            return owner
        raise FileExistsError(name)

    def renew(self, name: str, owner: Owner) -> bool:
        with self._opened(name, os.O_RDWR) as handle:
            if handle is None or not owner.wrote(os.read(handle, SIZE)):
                return False
            os.pwrite(handle, owner.text(), 0)
        return True

    def remove(self, name: str, owner: Owner | None = None) -> None:
        with suppress(OSError):
            if owner is None or owner.wrote(self.read(name)):
                (self._folder / name).unlink()

    def is_copy(self, name: str, owner: Owner) -> bool:
        path = self._folder / name
        if not owner.is_here or owner.place == _place(path):
            return False
        try:
            return owner.inode != path.lstat().st_ino
        except FileNotFoundError:  # let go since it was read
            return True

    @contextmanager
    def _opened(self, name: str, flags: int) -> Iterator[int | None]:
        path, handle = self._folder / name, None
        with writing(path):
            with suppress(FileNotFoundError):  # not blocking: a pipe may lie there
                handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                yield handle
            finally:
                if handle is not None:
                    os.close(handle)


def _place(path: Path) -> str:
    """A path of this machine, short."""
    return hashlib.sha256(os.fsencode(resolved(path.parent) / path.name)).hexdigest()[:16]
