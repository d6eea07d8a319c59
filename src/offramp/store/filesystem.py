"""All that a store asks of the file system that it lies on.

A store elsewhere is a class with the methods of `FileSystem`, in a file of its own, and a line in
`file_system`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from offramp.store.disk import Disk
from offramp.store.locks import Lease
from offramp.store.place import Place, Url
from offramp.store.place import place as place_of


class FileSystem(Protocol):
    """The files of one store. A name is its parts below the root: "nodes", key, "node.json".

    Every method raises OfframpError where a name leads over a link, for a full disk, and for what may
    not be read or written.
    """

    def path(self, *name: str) -> Place:
        """What messages call a name, whether it is there or not."""

    def exists(self, *name: str) -> bool: ...

    def is_folder(self, *name: str) -> bool: ...

    def names(self, *folder: str) -> list[str]:
        """What lies in a folder, sorted; nothing where there is none."""

    def sealed(self, sha256: str, *name: str) -> tuple[str, ...]:
        """The name under which a file of a sealed folder lies. sha256: what the manifest says of it."""

    def read(self, *name: str) -> bytes:
        """The bytes of a file. Raises Damaged where they are gone."""

    def length(self, *name: str) -> int | None:
        """Bytes of a file; None where there is none."""

    def size(self, *name: str) -> int:
        """Bytes of a file or of all in a folder, of the whole store without a name."""

    def age_s(self, *name: str) -> float:
        """Seconds since a file, or anything in a folder, was last written."""

    def write(self, data: bytes, *name: str) -> None:
        """Make a file or replace it at once: the old one stays until the new one is kept."""

    def write_folder(self, files: Mapping[str, bytes], *name: str, over: bool) -> bool:
        """The same for a sealed folder with all its files, the manifest last. over: replace one that may
        be there; without it, False where there is one by now, which stays."""

    def remove(self, *name: str) -> None:
        """Take a file or a folder away at once; nothing where there is none. A link goes itself."""

    def leftovers(self, *folder: str) -> list[tuple[str, ...]]:
        """Names of what killed writers left in a folder; of half-made and half-removed folders without
        one."""

    def index(self, least: int = 1) -> int:
        """Make reading all manifests quick for whoever has read none, where at least `least` of a kind
        are new; how many it holds. 0 where nothing was to be done."""

    def lock(self, name: str) -> Lease:
        """A lock, as soon as it is free; its holder's death frees it."""

    def try_lock(self, name: str) -> Lease | None:
        """A lock, or None when somebody holds it, this process included."""

    def holder(self, name: str) -> str | None:
        """Who holds a lock and for how long, in words; None where nobody does, or nothing tells."""

    def gate(self) -> AbstractContextManager[Lease]:
        """While it is shut nobody takes a lock. Not to be nested."""

    def watch_locks(self) -> None:
        """Look until it is known of each lock whether it is held, a minute at most."""

    def locks(self) -> tuple[set[str], list[tuple[str, ...]]]:
        """Names of the locks that are held, and of the files of those that are not; true as long as the
        caller keeps the gate shut."""


def file_system(root: str | Place) -> FileSystem:
    """The files of the store at `root`. Raises OfframpError if that is not a folder, and for an address
    that nothing here can reach."""
    where = place_of(root)
    if isinstance(where, Url):
        from offramp.store.cloud import Cloud  # nobody who stays on one machine imports fsspec

        return Cloud(where)
    return Disk(where)
