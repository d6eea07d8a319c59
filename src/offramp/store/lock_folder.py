"""The files of locks in a folder of this machine's file systems, network file systems included."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from offramp.files import unlinked, writing
from offramp.store.locks import SIZE, Owner, owner_of, text


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
        path = self._folder / name
        with writing(path):
            try:
                # A pipe may lie there.
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                return None
            try:
                return os.read(handle, SIZE)
            except OSError as error:
                if error.errno == errno.ESTALE:  # NFS: removed since it was opened
                    return None
                if error.errno == errno.EISDIR:
                    return b""
                raise
            finally:
                os.close(handle)

    def make(self, name: str, owner: Owner) -> Owner:
        path = self._folder / name
        with writing(path), suppress(FileExistsError):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                try:
                    made = replace(owner, place=_place(path), inode=os.fstat(handle).st_ino)
                    os.write(handle, text(made))
                finally:
                    os.close(handle)
            except OSError:
                with suppress(OSError):
                    path.unlink()
                raise
            return made
        raise FileExistsError(name)

    def renew(self, name: str, owner: Owner) -> bool:
        path = self._folder / name
        with writing(path):
            try:
                handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                return False
            try:
                there = owner_of(os.read(handle, SIZE))
                if there is None or there.token != owner.token:
                    return False
                os.pwrite(handle, text(owner), 0)
            finally:
                os.close(handle)
        return True

    def remove(self, name: str, owner: Owner | None = None) -> None:
        path = self._folder / name
        with suppress(OSError):  # a file that stays expires
            if owner is not None:
                there = owner_of(self.read(name))
                if there is None or there.token != owner.token:
                    return
            path.unlink()

    def is_copy(self, name: str, owner: Owner) -> bool:
        path = self._folder / name
        if not owner.is_here or owner.place == _place(path):
            return False
        try:
            return owner.inode != path.lstat().st_ino
        except FileNotFoundError:  # let go since it was read
            return True


def _place(path: Path) -> str:
    """A path of this machine, short."""
    return hashlib.sha256(os.fsencode(path.parent.resolve() / path.name)).hexdigest()[:16]
