"""Locks for processes of any number of machines, on whatever makes a file only once: file systems
(`disk.LockFolder`) and object stores (`remote.LockObjects`).

A lock is a lease. Whoever makes the highest of its files, `NAME.1.lock`, `NAME.2.lock`, …, has it: one
that is there already cannot be made again, on network file systems neither. The holder writes into its
file every BEAT_S seconds. The file is void when its process is gone, which only its own machine can
tell, or when whoever waits has seen nothing new in it for EXPIRES_S seconds; clocks of two machines are
never compared. Then the next higher file may be made. So a holder that may have slept has to `renew`
before it keeps what it made.

Whoever takes a lock passes a gate, a lock itself. Whoever keeps the gate shut can therefore tell which
locks are held, and remove the files of the others.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from offramp.errors import OfframpError
from offramp.escape import printable
from offramp.hashing import from_text
from offramp.units import duration

BEAT_S, EXPIRES_S = 5.0, 60.0  # twelve beats: a server that hangs for half a minute costs nobody a lock
LOOK_S = 5.0  # of silence, at most, that one look can tell of: whoever waits may have slept itself
POLL_S, GATE_POLL_S = 0.1, 0.01  # the gate is shut for a few file operations only
GATE = ".gate"
FILE = re.compile(r"(?P<name>.+?)(?:\.(?P<number>[1-9][0-9]*))?\.lock", re.DOTALL)
SIZE = 1024  # bytes of a file: what is written over it leaves nothing of what was there
HOST_MOST = 100  # characters of a host's name, so that all fits into SIZE
BOOT, PROCESSES = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


@dataclass(frozen=True)
class Owner:
    """Who made the file of a lock."""

    token: str  # of this file alone
    place: str  # where the file was made, hashed; "" in an object store
    inode: int  # of the file, in a folder
    host: str  # name of the machine, for messages
    machine: str  # see `_machine`
    pid: int  # its process
    started: str  # when that process began; see `_started`
    seconds: float  # for how long the lock has been held

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine; False where that cannot be told."""
        return self.machine != "" and self.machine == _machine()

    @property
    def is_gone(self) -> bool:
        """Whether its process is known to have ended."""
        return self.is_here and _has_ended(self.pid, self.started)

    def text(self) -> bytes:
        """What its file says: SIZE bytes."""
        return (json.dumps(asdict(self)).ljust(SIZE - 1) + "\n").encode()

    def wrote(self, content: bytes | None) -> bool:
        """Whether a file with this content is its own."""
        owner = owner_of(content)
        return owner is not None and owner.token == self.token


class LockFiles(Protocol):
    """The files of one store's locks, by name.

    Every method raises OfframpError where a name is a link, and for what may not be read or written.
    """

    pause_s: float
    """Between two looks of whoever waits, at least."""

    def begin(self) -> None:
        """Make the place that they lie in, and see that locks hold there."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes | None:
        """What a file says by now, which changes while its owner lives; None where there is none."""

    def make(self, name: str, owner: Owner) -> Owner:
        """Make a file, and say who its owner is by then. Raises FileExistsError where there is one."""

    def renew(self, name: str, owner: Owner) -> bool:
        """Whether a file is still its owner's, and says anew what there is to say."""

    def remove(self, name: str, owner: Owner | None = None) -> None:
        """Take a file away, if it is the owner's; one that cannot be removed stays, and expires."""

    def is_copy(self, name: str, owner: Owner) -> bool:
        """Whether a file is known to be a copy of the one that its owner made."""


class Lease:
    """A lock held until `release`, the end of its `with` block, or the death of the process."""

    def __init__(self, files: LockFiles, name: str, owner: Owner) -> None:
        self._files, self._name, self._owner = files, name, owner
        self._began = time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def renew(self) -> bool:
        """Whether it is still held, which it then is for EXPIRES_S more.

        Raises OfframpError where its file cannot be written.
        """
        if self._is_over:
            return False
        owner = replace(self._owner, seconds=time.monotonic() - self._began)
        if not self._files.renew(self._name, owner):
            return False
        parsed = FILE.fullmatch(self._name)
        assert parsed is not None
        files = numbered(self._files.names()).get(parsed["name"], {})
        return max(files, default=0) <= int(parsed["number"])

    def release(self) -> None:
        """Let go; a second time does nothing, nor does a process that was forked meanwhile."""
        if self._is_over:
            return
        self._ended.set()
        with suppress(OSError, OfframpError):  # a file that stays expires
            self._files.remove(self._name, self._owner)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def _is_over(self) -> bool:
        return self._ended.is_set() or self._owner.pid != os.getpid()

    def _beat(self) -> None:
        valid = True
        while valid and not self._ended.wait(BEAT_S):
            with suppress(OSError, OfframpError):  # that may pass
                valid = self.renew()


@dataclass(frozen=True)
class Observation:
    """What was last seen in a file, when, and for how many seconds there had been nothing new."""

    content: bytes
    at: float
    silent: float


class Locks:
    """The locks of one store, as one process sees them: it remembers which files were silent."""

    def __init__(self, files: LockFiles) -> None:
        self._files = files
        self._seen: dict[str, Observation] = {}

    @contextmanager
    def gate(self) -> Iterator[Lease]:
        """Shut the gate, waiting for whoever has it shut. Not to be nested."""
        self._files.begin()
        while (lease := self._take(GATE)) is None:
            time.sleep(max(GATE_POLL_S, self._files.pause_s / 4))
        with lease:
            yield lease

    def try_take(self, name: str) -> Lease | None:
        """The lock `name`, or None when somebody holds it, this process included."""
        with ExitStack() as undone:
            with self.gate():
                lease = self._take(name)
                if lease is not None:
                    undone.enter_context(lease)
            undone.pop_all()
        return lease

    def take(self, name: str) -> Lease:
        """The lock `name`, as soon as it is free."""
        while (lease := self.try_take(name)) is None:
            time.sleep(self._pause)
        return lease

    def holder(self, name: str) -> str | None:
        """Who holds the lock `name` and for how long, in words; None where nobody does, or nothing
        tells. Whoever asks again and again hears silence, as whoever waits does."""
        files = numbered(self._files.names()).get(name)
        if not files:
            return None
        file = files[max(files)]
        content = self._files.read(file)
        owner = owner_of(content)
        if owner is None or self._is_void(file, content):
            return None
        words = f"process {owner.pid} on {owner.host}, at it for {duration(owner.seconds)}"
        silent = self._seen[file].silent
        if silent > 2 * BEAT_S:
            words += f" and silent for {silent:.0f} s (from {EXPIRES_S:.0f} s on it counts as gone)"
        return words

    def watch(self) -> None:
        """Look until it is known of each lock whether it is held: of processes of this machine at once,
        of others after some seconds, of those that are gone after EXPIRES_S."""
        contents = {file: self._files.read(file) for file in _highest(numbered(self._files.names()))}
        unclear = {file: content for file, content in contents.items() if content is not None}
        while unclear:
            for file, content in list(unclear.items()):
                owner = owner_of(content)
                here = owner is not None and owner.is_here
                if here or self._is_void(file, now := self._files.read(file)) or now != content:
                    del unclear[file]
            time.sleep(self._pause if unclear else 0.0)

    def survey(self) -> tuple[set[str], list[str]]:
        """The locks that are held, and files that nobody needs.

        The caller keeps the gate shut while it relies on the answer.

        Returns:
            The names of the locks that are held; the files of all others, sorted.
        """
        files = numbered(self._files.names())
        files.pop(GATE, None)
        live = {name for file, name in _highest(files).items() if not self._is_void_now(file)}
        return live, sorted(file for name in files.keys() - live for file in files[name].values())

    @property
    def _pause(self) -> float:
        return max(POLL_S, self._files.pause_s)

    def _take(self, name: str) -> Lease | None:
        """Interrupted, in a notebook whose process lives on, it leaves no lock that nobody can let go:
        its thread would keep it for as long."""
        files = numbered(self._files.names()).get(name, {})
        top = max(files, default=0)
        if top and not self._is_void_now(files[top]):
            return None
        try:
            lease = new_lease(self._files, f"{name}.{top + 1}.lock")
        except FileExistsError:
            return None
        with ExitStack() as undone:
            undone.enter_context(lease)
            now = numbered(self._files.names()).get(name, {})
            if now.keys() - files.keys() - {top + 1}:  # what was listed above was old
                return None
            for old in files.values():
                self._seen.pop(old, None)
                self._files.remove(old)
            undone.pop_all()
        return lease

    def _is_void_now(self, file: str) -> bool:
        return self._is_void(file, self._files.read(file))

    def _is_void(self, file: str, content: bytes | None) -> bool:
        """Whether whoever made this file has its lock no longer, as far as can be told by its content,
        as just read."""
        owner, now = owner_of(content), time.monotonic()
        if content is None or (
            owner is not None and (owner.is_gone or self._files.is_copy(file, owner))
        ):
            return True
        last, silent = self._seen.get(file), 0.0
        if last is not None and last.content == content:
            silent = last.silent + min(now - last.at, LOOK_S)
        self._seen[file] = Observation(content, now, silent)
        return silent >= EXPIRES_S


def numbered(names: Iterable[str]) -> dict[str, dict[int, str]]:
    """The files of locks, by name and number; 0 of those that nothing holds, which flock once locked."""
    files: dict[str, dict[int, str]] = {}
    for name in names:
        if parsed := FILE.fullmatch(name):
            files.setdefault(parsed["name"], {})[int(parsed["number"] or 0)] = name
    return files


def _highest(files: Mapping[str, Mapping[int, str]]) -> dict[str, str]:
    """The names of locks by the file that tells who has each."""
    return {numbers[max(numbers)]: name for name, numbers in files.items() if max(numbers)}


def new_lease(files: LockFiles, file: str) -> Lease:
    """The lease of a file that is not there yet. Raises FileExistsError where it is."""
    pid = os.getpid()
    host = printable(socket.gethostname())[:HOST_MOST]
    owner = Owner(secrets.token_hex(16), "", 0, host, _machine(), pid, _started(pid), seconds=0.0)
    owner = files.make(file, owner)
    try:
        return Lease(files, file, owner)
    except RuntimeError as error:  # threading says no more than that
        files.remove(file, owner)
        raise OfframpError(
            f"no thread can be started to keep {file} ({error}); allow more of them, or more "
            "address space (`ulimit -u`, `ulimit -v`)"
        ) from error


_READ: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("token", "place", "machine", "started"), str),
    **dict.fromkeys(("inode", "pid"), int),
    "host": lambda host: printable(host)[:HOST_MOST],
    "seconds": lambda seconds: max(0.0, min(1e9, float(seconds))),
}


def owner_of(content: bytes | None) -> Owner | None:
    """Who made a file that says so; None of one that says something else, or nothing yet."""
    try:
        fields = from_text(content or b"")
        return Owner(**{name: read(fields[name]) for name, read in _READ.items()})
    except (ValueError, TypeError, LookupError, OverflowError):
        return None


def _machine() -> str:
    """What tells this machine, and the numbers that processes have on it, from all others: it changes
    with each start, and is another one in a container. "" where nothing tells."""
    try:
        return f"{socket.gethostname()} {BOOT.read_text().strip()} {PROCESSES.stat().st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process of this machine began, in ticks; "ended" of one that is only to be taken note of;
    "" where nothing tells."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "ended" if state in "ZX" else fields[18]
    except (OSError, ValueError, LookupError):
        return ""


def _has_ended(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    now = _started(pid)
    return "" not in (now, started) and now != started
