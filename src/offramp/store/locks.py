"""Locks that the kernel lets go when their holder dies, one file each in one folder.

Whoever takes a lock passes a gate. Whoever keeps the gate shut can therefore tell which locks are
held, and remove the files of the others without anyone locking a file that is no longer there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from offramp.files import unlinked, writing

POLL_S = 0.1


class Held:
    """A lock held until `release`, the end of its `with` block, or the death of the process."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def release(self) -> None:
        """Let go; a second time does nothing."""
        self._lock.release()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextmanager
def gate(folder: Path) -> Iterator[None]:
    """Shut the gate of `folder`, waiting for whoever has it shut. Not to be nested."""
    path = unlinked(folder.parent, folder.name, ".gate")
    lock = FileLock(path, thread_local=False)
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(poll_interval=0.01)
    try:
        yield
    finally:
        lock.release()


def try_take(folder: Path, name: str) -> Held | None:
    """The lock `name`, or None when somebody holds it, this process included."""
    with gate(folder):
        return _take(folder / f"{name}.lock")


def take(folder: Path, name: str) -> Held:
    """The lock `name`, as soon as it is free."""
    while (held := try_take(folder, name)) is None:
        time.sleep(POLL_S)
    return held


def survey(folder: Path) -> tuple[set[str], list[Path]]:
    """Names of the locks that are held, and the files of those that are not. The caller keeps the
    gate shut while it relies on the answer."""
    held: set[str] = set()
    free: list[Path] = []
    for path in sorted(folder.glob("*.lock")):
        lock = _take(path)
        if lock is None:
            held.add(path.stem)
        else:
            lock.release()
            free.append(path)
    return held, free


def _take(path: Path) -> Held | None:
    unlinked(path.parent, path.name)  # locking opens the file, and would empty what a link leads to
    lock = FileLock(path, thread_local=False)  # whoever is handed the lock may release it
    try:
        with writing(path):
            lock.acquire(blocking=False)
    except Timeout:
        return None
    return Held(lock)
