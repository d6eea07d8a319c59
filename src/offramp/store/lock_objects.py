"""The files of locks in an object store.

`NAME.1.lock` is made by conditional create and never written again: an object has no handle that would
miss the name once it was removed, so a holder that slept could write over another's. Its holder is
heard of through `NAME.1.lock.TOKEN.beat` beside it, which is of one token alone.
"""

from __future__ import annotations

import re

from offramp.errors import OfframpError
from offramp.store.locks import Owner, owner_of, text
from offramp.store.remote import Remote

BEAT = re.compile(r"(?P<file>.+\.lock)\.[0-9a-f]{32}\.beat", re.DOTALL)


class LockObjects:
    """`locks.LockFiles` in a folder of an object store."""

    pause_s = 1.0

    def __init__(self, remote: Remote, folder: str) -> None:
        self._remote, self._folder = remote, folder
        self._beaten: set[str] = set()
        self._creates_once = False

    def begin(self) -> None:
        """Raises OfframpError where an object that is there is made once more: no lock would hold."""
        if self._creates_once:
            return
        probe = (self._folder, ".creates-once")
        self._remote.put(b"1", *probe)
        if self._remote.make(b"2", *probe):
            raise OfframpError(
                f"{self._remote.url} makes an object although it is there (no conditional create, "
                "If-None-Match), so nobody could work on it safely; take a store that does, or a folder"
            )
        self._creates_once = True

    def names(self) -> list[str]:
        return [name[-1] for name in self._remote.below(self._folder) if len(name) == 2]

    def read(self, name: str) -> bytes | None:
        made = self._remote.get(self._folder, name)
        owner = owner_of(made)
        if made is None or owner is None:
            return made
        heard = self._remote.get(self._folder, _beat(name, owner))
        return made if owner_of(heard) is None else heard

    def make(self, name: str, owner: Owner) -> Owner:
        if not self._remote.make(text(owner), self._folder, name):
            raise FileExistsError(name)
        return owner

    def renew(self, name: str, owner: Owner) -> bool:
        beat = _beat(name, owner)
        self._remote.put(text(owner), self._folder, beat)
        self._beaten.add(beat)
        there = owner_of(self._remote.get(self._folder, name))
        if there is not None and there.token == owner.token:
            return True
        self._remote.remove(self._folder, beat)
        return False

    def remove(self, name: str, owner: Owner | None = None) -> None:
        try:
            there = owner_of(self._remote.get(self._folder, name))
            if owner is not None and (there is None or there.token != owner.token):
                return
            self._remote.remove(self._folder, name)
            if there is not None and (owner is None or _beat(name, there) in self._beaten):
                self._remote.remove(self._folder, _beat(name, there))
        except OfframpError:  # what stays expires
            pass

    def is_copy(self, name: str, owner: Owner) -> bool:  # noqa: ARG002
        return False


def loose_beats(names: list[str]) -> list[str]:
    """Beats of locks that are gone: of a holder that slept while it was outdone."""
    there = set(names)
    return [n for n in names if (beat := BEAT.fullmatch(n)) and beat["file"] not in there]


def _beat(name: str, owner: Owner) -> str:
    return f"{name}.{owner.token}.beat"
