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
from offramp.store import sealed
from offramp.store.archive import ABANDON, LOST, NODE, TRIAL, Archive
from offramp.store.sealed import Damaged, Kind
from offramp.store.store import Store, compare

AT_ONCE = 8  # an object store answers several as soon as one
LOCK = "copying"
ALONE = {"seeds": LOST, "plans": ABANDON}  # remedies of damaged ones


@dataclass(frozen=True)
class CopyOutcome:
    """What became of one thing. what: its place in the store.  bytes: that were written; 0 where it was
    there.  damaged: why it was left out."""

    what: str
    bytes: int
    damaged: str = ""


@dataclass(frozen=True)
class FolderPart:
    """A folder of the store and what is to be copied of it."""

    folder: str
    names: tuple[str, ...]


def copy(source: Archive, target: Store) -> Generator[FolderPart | CopyOutcome, None, None]:
    """Copy all that is finished; yields each folder before its things, and each thing when it is there.

    What is damaged in the source is left out, and told. While it copies, nobody else copies into the
    target or removes anything there. Raises OfframpError where somebody does, and where a place may not
    be read or written.
    """
    if not source.exists():
        raise OfframpError(f"there is no store at {source.root}; name one that is")
    if str(source.root) == str(target.root):
        raise OfframpError(f"{source.root} is to be copied onto itself; name another target")
    held = target.try_lock(LOCK)
    if held is None:
        raise OfframpError(
            f"somebody else copies into {target.root} ({target.holder(LOCK)}); wait until that ends"
        )
    with held:
        # Trials are listed first and copied last: one that is there has its nodes, also where others
        # finish more meanwhile.
        trials = tuple(source.names(TRIAL.folder))
        for kind, names in ((NODE, tuple(source.names(NODE.folder))), (TRIAL, trials)):
            yield FolderPart(kind.folder, names)
            yield from _sealed(source, target, kind, names)
        for folder, remedy in ALONE.items():
            names = tuple(source.documents(folder))
            yield FolderPart(folder, names)
            there = set(target.archive.documents(folder))
            for name in names:
                yield _alone(source, target, folder, name, name in there, remedy)


def _sealed(source: Archive, target: Store, kind: Kind, names: tuple[str, ...]) -> Iterator[CopyOutcome]:
    there = set(target.archive.names(kind.folder))
    todo = iter(names)
    with ThreadPoolExecutor(AT_ONCE) as pool:

        def begun(count: int) -> list[Future[CopyOutcome]]:
            some = islice(todo, count)
            return [pool.submit(_folder, source, target, kind, name, name in there) for name in some]

        waiting = begun(2 * AT_ONCE)
        while waiting:
            yield waiting.pop(0).result()
            waiting += begun(1)


def _folder(source: Archive, target: Store, kind: Kind, name: str, is_there: bool) -> CopyOutcome:
    what = f"{kind.folder}/{name}"
    if is_there and sealed.is_whole(target.archive.files, kind, name):
        if kind is NODE:
            kept = sealed.read(target.archive.files, kind, name)
            try:
                made = sealed.read(source.files, kind, name)
            except Damaged as error:
                return CopyOutcome(what, 0, str(error))
            compare(name, kept, made)
        return CopyOutcome(what, 0)
    try:
        manifest = sealed.read(source.files, kind, name)
        files = {file: sealed.content(source.files, kind, name, file) for file in sorted(kind.files)}
    except Damaged as error:
        return CopyOutcome(what, 0, str(error))
    sealed.write(target.archive.files, kind, name, manifest, files, over=is_there)
    return CopyOutcome(what, sum(map(len, files.values())))


def _alone(
    source: Archive, target: Store, folder: str, name: str, is_there: bool, remedy: str
) -> CopyOutcome:
    what = f"{folder}/{name}.json"
    if is_there or (folder == "plans" and target.has_trial(name, whole=False)):
        return CopyOutcome(what, 0)
    try:
        document = sealed.read_alone(source.files, folder, name, remedy)
    except Damaged as error:
        return CopyOutcome(what, 0, str(error))
    data = sealed.text(document)
    target.archive.files.write(data, folder, f"{name}.json")
    return CopyOutcome(what, len(data))
