"""Where a store lies, a folder or an address such as `s3://bucket/runs`, and what it needs of the file
system there. Imports nothing.

A store elsewhere is a class with the methods of `FileSystem`, in a file of its own, and a line in
`file_system`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from offramp.errors import OfframpError

if TYPE_CHECKING:
    from offramp.store.locks import Lease

ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/(?P<second>/?)(?P<rest>.*)", re.DOTALL)


class Place(Protocol):
    """A folder or an address, or what lies below it; `str` is how a user would write it."""

    def joinpath(self, *names: str) -> Place: ...


@dataclass(frozen=True)
class Url:
    """An address that fsspec knows, without a slash at its end."""

    text: str

    def joinpath(self, *names: str) -> Url:
        return Url("/".join((self.text, *names)))

    def __truediv__(self, name: str) -> Url:
        return self.joinpath(name)

    def __str__(self) -> str:
        return self.text

    @property
    def scheme(self) -> str:
        """Such as `s3`."""
        return self.text.partition("://")[0]


def place(named: str | Place) -> Path | Url:
    """What a user named. A `Path` of an address has lost one of its slashes, and gets it back.

    Example:
        >>> place("runs/demo")
        PosixPath('runs/demo')
        >>> place("s3://bucket/runs/"), place(Path("s3://bucket/runs"))
        (Url(text='s3://bucket/runs'), Url(text='s3://bucket/runs'))
        >>> place("file:///data/runs")
        PosixPath('/data/runs')
    """
    if isinstance(named, Url):
        return named
    parsed = ADDRESS.fullmatch(str(named))
    bare = parsed is not None and parsed["second"] and not parsed["rest"].strip("/")
    if bare or "\0" in str(named) or not str(named).strip():
        raise OfframpError(
            f"a store cannot be called {str(named)!r:.60}; name a folder, or s3://BUCKET/NAME"
        )
    if parsed is None or (isinstance(named, str) and not parsed["second"]):
        return Path(str(named))
    scheme, rest = parsed["scheme"].lower(), parsed["rest"].rstrip("/")
    return Path("/", rest) if scheme in ("file", "local") else Url(f"{scheme}://{rest}")


class FileSystem(Protocol):
    """The files of one store. A name is its parts below the root: "nodes", key, "node.json".

    Raises:
        OfframpError: every method, where a name leads over a link, for a full disk, and for what may
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
        """Make a sealed folder with all its files at once, the manifest last. over: replace one that may
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
    """The files of the store at `root`.

    Raises:
        OfframpError: it is not a folder, or an address that nothing here can reach.
    """
    where = place(root)
    if isinstance(where, Url):
        from offramp.store.cloud import Cloud  # nobody who stays on one machine imports fsspec

        return Cloud(where)
    from offramp.store.disk import Disk

    return Disk(where)
