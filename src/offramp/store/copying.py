"""From one store into another, folders and addresses alike: verified by seals, and resumable.

Finished phases and trials are copied, how seeds were added, and the plans of what is unfinished. What is
there already stays. Checkpoints and locks are not copied: they are of whoever is at work.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from offramp.errors import OfframpError
from offramp.hashing import text
from offramp.store import sealed
from offramp.store.archive import NODE, PLANS, SEEDS, TRIAL, Archive
from offramp.store.sealed import Damaged, Documents, Kind
from offramp.store.store import Store, compare

AT_ONCE = 8  # an object store answers several as soon as one
LOCK = "copying"


@dataclass(frozen=True)
class CopyOutcome:
    """What became of one thing."""

    what: str  # its place in the store
    bytes: int  # that were written; 0 where it was there
    damaged: str = ""  # why it was left out


@dataclass(frozen=True)
class FolderPart:
    """A folder of the store and what is to be copied of it."""

    folder: str
    names: tuple[str, ...]


def copy(source: Archive, target: Store) -> Generator[FolderPart | CopyOutcome, None, None]:
    """Copy all that is finished.

    What is damaged in the source is left out, and reported. While it copies, nobody else copies into the
    target or removes anything there.

    Yields:
        Each folder before its things, and each thing when it is there.

    Raises:
        OfframpError: somebody else copies there, or a place may not be read or written.
    """
    if not source.exists():
        raise OfframpError(f"there is no store at {source.root}; name one that is")
    if str(source.root) == str(target.root):
        raise OfframpError(f"{source.root} is to be copied onto itself; name another target")
    lease = target.try_lock(LOCK)
    if lease is None:
        raise OfframpError(
            f"somebody else copies into {target.root} ({target.holder(LOCK)}); wait until that ends"
        )
    with lease:
        # Trials are listed first and copied last: one that is there has its nodes, also where others
        # finish more meanwhile.
        trials = tuple(source.names(TRIAL.folder))
        for kind, names in ((NODE, tuple(source.names(NODE.folder))), (TRIAL, trials)):
            yield FolderPart(kind.folder, names)
            yield from _folders(source, target, kind, names)
        for documents in (SEEDS, PLANS):
            names = tuple(source.documents(documents.folder))
            yield FolderPart(documents.folder, names)
            present = set(target.archive.documents(documents.folder))
            for name in names:
                yield _document(source, target, documents, name, name in present)


def _folders(
    source: Archive, target: Store, kind: Kind, names: tuple[str, ...]
) -> Iterator[CopyOutcome]:
    present = set(target.archive.names(kind.folder))
    todo = iter(names)
    with ThreadPoolExecutor(AT_ONCE) as pool:

        def begin(count: int) -> list[Future[CopyOutcome]]:
            some = islice(todo, count)
            return [pool.submit(_folder, source, target, kind, name, name in present) for name in some]

        waiting = begin(2 * AT_ONCE)
        while waiting:
            yield waiting.pop(0).result()
            waiting += begin(1)


def _folder(source: Archive, target: Store, kind: Kind, name: str, is_there: bool) -> CopyOutcome:
    what = f"{kind.folder}/{name}"
    files = target.archive.files
    whole = is_there and sealed.is_whole(files, kind, name)
    try:
        if whole:
            if kind is NODE:
                compare(name, sealed.read(files, kind, name), sealed.read(source.files, kind, name))
            return CopyOutcome(what, 0)
        manifest = sealed.read(source.files, kind, name)
        content = {file: sealed.content(source.files, kind, name, file) for file in sorted(kind.files)}
    except Damaged as error:
        return CopyOutcome(what, 0, str(error))
    sealed.write(files, kind, name, manifest, content, over=is_there)
    return CopyOutcome(what, sum(map(len, content.values())))


def _document(
    source: Archive, target: Store, documents: Documents, name: str, is_there: bool
) -> CopyOutcome:
    what = "/".join(documents.place(name))
    if is_there or (documents is PLANS and target.has_trial(name, whole=False)):
        return CopyOutcome(what, 0)
    try:
        data = text(documents.read(source.files, name))
    except Damaged as error:
        return CopyOutcome(what, 0, str(error))
    target.archive.files.write(data, *documents.place(name))
    return CopyOutcome(what, len(data))
