"""Locks for processes of any number of machines, on every file system that makes a file only once.

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

import errno
import hashlib
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from offramp.errors import OfframpError
from offramp.escape import printable
from offramp.files import unlinked, writing
from offramp.units import duration

BEAT_S, EXPIRES_S = 5.0, 60.0
LOOK_S = 5.0  # of silence, at most, that one look can tell of: whoever waits may have slept itself
POLL_S, GATE_POLL_S = 0.1, 0.01
GATE = ".gate"
FILE = re.compile(r"(?P<name>.+?)(?:\.(?P<number>[1-9][0-9]*))?\.lock", re.DOTALL)
SIZE = 1024  # bytes of a file: what is written over it leaves nothing of what was there
HOST_MOST = 100  # characters of its name
BOOT, PROCESSES = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


@dataclass(frozen=True)
class Owner:
    """Who made a file. token: of this file alone.  place, inode: where it was made.  machine, started:
    of `_machine` and `_started`.  seconds: for how long the lock has been held."""

    token: str
    place: str
    inode: int
    host: str
    machine: str
    pid: int
    started: str
    seconds: float

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine; False where that cannot be told."""
        return self.machine != "" and self.machine == _machine()

    @property
    def is_gone(self) -> bool:
        """Whether its process is known to have ended."""
        return self.is_here and _has_ended(self.pid, self.started)

    def is_of_another(self, path: Path) -> bool:
        """Whether `path` is known to be a copy of its file."""
        return self.is_here and self.place != _place(path) and self.inode != path.lstat().st_ino


class Held:
    """A lock held until `release`, the end of its `with` block, or the death of the process."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self._path, self._owner = path, owner
        self._began = time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def renew(self) -> bool:
        """Whether it is still held, which it then is for EXPIRES_S more.

        Raises OfframpError where its file cannot be written.
        """
        if self._ended.is_set() or self._owner.pid != os.getpid():
            return False
        owner = replace(self._owner, seconds=time.monotonic() - self._began)
        with writing(self._path):
            return _written_over(self._path, owner) and not _is_outdone(self._path)

    def release(self) -> None:
        """Let go; a second time does nothing, nor does a process that was forked meanwhile."""
        if self._ended.is_set() or self._owner.pid != os.getpid():
            return
        self._ended.set()
        with suppress(OSError, OfframpError):  # a file that stays expires
            owner = _owner(_content(self._path))
            if owner is not None and owner.token == self._owner.token:
                self._path.unlink()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _beat(self) -> None:
        held = True
        while held and not self._ended.wait(BEAT_S):
            with suppress(OSError, OfframpError):  # that may pass
                held = self.renew()


@dataclass(frozen=True)
class Seen:
    """What was last seen in a file, when, and for how many seconds there had been nothing new."""

    content: bytes
    at: float
    silent: float


class Locks:
    """The locks in one folder, as one process sees them: it remembers which files were silent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, Seen] = {}

    @contextmanager
    def gate(self) -> Iterator[Held]:
        """Shut the gate, waiting for whoever has it shut. Not to be nested."""
        with writing(unlinked(self._folder.parent, self._folder.name)):
            self._folder.mkdir(parents=True, exist_ok=True)
        while (held := self._take(GATE)) is None:
            time.sleep(GATE_POLL_S)
        with held:
            yield held

    def try_take(self, name: str) -> Held | None:
        """The lock `name`, or None when somebody holds it, this process included."""
        with self.gate():
            return self._take(name)

    def take(self, name: str) -> Held:
        """The lock `name`, as soon as it is free."""
        while (held := self.try_take(name)) is None:
            time.sleep(POLL_S)
        return held

    def holder(self, name: str) -> str | None:
        """Who holds the lock `name` and for how long, in words; None where nobody does, or nothing
        tells."""
        files = _files(self._folder).get(name, {0: self._folder})
        path = files[max(files)]
        owner = _owner(_content(path))
        if owner is None or owner.is_gone or owner.is_of_another(path):
            return None
        said = f"process {owner.pid} on {owner.host}, at it for {duration(owner.seconds)}"
        silent = self._seen[path].silent if path in self._seen else 0.0
        if silent > 2 * BEAT_S:
            said += f" and silent for {silent:.0f} s (from {EXPIRES_S:.0f} s on it counts as gone)"
        return said

    def watch(self) -> None:
        """Look until it is known of each lock whether it is held: of processes of this machine at once,
        of others after some seconds, of those that are gone after EXPIRES_S."""
        tops = [files[max(files)] for files in _files(self._folder).values() if max(files)]
        open_ = {path: content for path in tops if (content := _content(path)) is not None}
        while open_:
            for path, content in list(open_.items()):
                owner = _owner(content)
                here = owner is not None and owner.is_here
                if here or self._is_void(path) or _content(path) != content:
                    del open_[path]
            time.sleep(POLL_S if open_ else 0.0)

    def survey(self) -> tuple[set[str], list[Path]]:
        """Names of the locks that are held, and the files of those that are not. The caller keeps the
        gate shut while it relies on the answer."""
        found = {name: files for name, files in _files(self._folder).items() if name != GATE}
        tops = {name: files[max(files)] for name, files in found.items() if max(files)}
        held = {name for name, path in tops.items() if not self._is_void(path)}
        return held, sorted(p for n, files in found.items() if n not in held for p in files.values())

    def _take(self, name: str) -> Held | None:
        files = _files(self._folder).get(name, {})
        top = max(files, default=0)
        if top and not self._is_void(files[top]):
            return None
        path = self._folder / f"{name}.{top + 1}.lock"
        try:
            with writing(path):
                held = _made(path)
        except FileExistsError:
            return None
        if _is_outdone(path):  # what was listed above was old
            held.release()
            return None
        for old in files.values():
            self._seen.pop(old, None)
            with suppress(OSError):
                old.unlink()
        return held

    def _is_void(self, path: Path) -> bool:
        """Whether whoever made this file has its lock no longer, as far as can be told by now."""
        content, now = _content(path), time.monotonic()
        owner = _owner(content)
        if content is None or (owner is not None and (owner.is_gone or owner.is_of_another(path))):
            return True
        last, silent = self._seen.get(path), 0.0
        if last is not None and last.content == content:
            silent = last.silent + min(now - last.at, LOOK_S)
        self._seen[path] = Seen(content, now, silent)
        return silent >= EXPIRES_S


def _files(folder: Path) -> dict[str, dict[int, Path]]:
    """The files of locks, by name and number; 0 of those that nothing holds, which flock once locked.

    Raises OfframpError where one is a link.
    """
    found: dict[str, dict[int, Path]] = {}
    names = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for each in names:
        if parsed := FILE.fullmatch(each):
            files = found.setdefault(parsed["name"], {})
            files[int(parsed["number"] or 0)] = unlinked(folder, each)
    return found


def _is_outdone(path: Path) -> bool:
    """Whether there is a higher file of the same lock."""
    parsed = FILE.fullmatch(path.name)
    assert parsed is not None
    return max(_files(path.parent).get(parsed["name"], {}), default=0) > int(parsed["number"])


def _made(path: Path) -> Held:
    """The lock of a file that is not there yet. Raises FileExistsError where it is."""
    host, pid = printable(socket.gethostname())[:HOST_MOST], os.getpid()
    token, place = secrets.token_hex(16), _place(path)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        inode = os.fstat(handle).st_ino
        owner = Owner(token, place, inode, host, _machine(), pid, _started(pid), 0.0)
        os.write(handle, _text(owner))
        os.close(handle)
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise
    try:
        return Held(path, owner)
    except RuntimeError as error:  # threading says no more than that
        path.unlink()
        raise OfframpError(
            f"no thread can be started to keep {path.name} ({error}); allow more of them, or more "
            "address space (`ulimit -u`, `ulimit -v`)"
        ) from error


def _written_over(path: Path, owner: Owner) -> bool:
    """Whether a file is still its owner's, and says anew what there is to say."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        there = _owner(os.read(handle, SIZE))
        if there is None or there.token != owner.token:
            return False
        os.pwrite(handle, _text(owner), 0)
    finally:
        os.close(handle)
    return True


def _content(path: Path) -> bytes | None:
    """What a file says; None where there is none."""
    with writing(path):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe may lie there
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


def _text(owner: Owner) -> bytes:
    return (json.dumps(asdict(owner)).ljust(SIZE - 1) + "\n").encode()


def _owner(content: bytes | None) -> Owner | None:
    """Who made a file that says so; None of one that says something else, or nothing yet."""
    try:
        said = json.loads(content or b"")
        texts = ("token", "place", "machine", "started")
        token, place, machine, started = (str(said[name]) for name in texts)
        host, seconds = printable(said["host"])[:HOST_MOST], max(0.0, min(1e9, float(said["seconds"])))
        inode, pid = int(said["inode"]), int(said["pid"])
        return Owner(token, place, inode, host, machine, pid, started, seconds)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None


def _place(path: Path) -> str:
    """A path of this machine, short."""
    return hashlib.sha256(os.fsencode(path.parent.resolve() / path.name)).hexdigest()[:16]


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
