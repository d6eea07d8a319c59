"""Locks on file systems of every kind, of several machines, and of what is moved, copied or cut off.

Other machines are this one under another name; their clocks are the tests' own.
"""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from store_kit import files, node, trial
from syrupy.assertion import SnapshotAssertion

from disks import small_disk
from forks import fork, in_fork
from offramp.errors import OfframpError
from offramp.store import locks
from offramp.store.disk import LockFolder
from offramp.store.locks import EXPIRES_S, LOOK_S, Locks
from offramp.store.store import Store
from wording import refusal

HERE = locks._machine()
SILENT = " and silent for 55 s (from 60 s on it counts as gone)"


def held_on(host: str, time: str) -> str:
    return f"process {os.getpid()} on {host}, at it for {time}"


def lock_files(store: Store) -> list[str]:
    """Files of locks and, in an object store, their beats."""
    return [name for name in store._files._locks._files.names() if ".lock" in name]


@pytest.mark.parametrize("code", ["ENOLCK", "EOPNOTSUPP", "EIO", "ENOSYS", None])
def test_no_kernel_lock_is_needed(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: str | None
) -> None:
    """Those of a file system refuse, or (None) say yes to everybody."""

    def flock(*_: object) -> None:
        if code is not None:
            raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, flock)
    other = Store(store.root)
    with store.lock("k"):
        assert other.try_lock("k") is None and store.try_lock("k") is None
        node(other)
        trial(other, "t")
    with other.lock("k"):
        assert store.try_lock("k") is None
    assert lock_files(store) == []


def test_filelocks_lease_is_never_free_where_names_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why locks are our own; when this fails, look again (docs/decisions/execution.md)."""
    filelock = pytest.importorskip("filelock")
    exchange = pytest.importorskip("filelock._filesystem._exchange")

    def lease() -> Any:
        return filelock.SoftFileLease(tmp_path / "k.lock", timeout=0)

    assert in_fork(lambda: (lease().acquire(), os._exit(0))) == 0  # without releasing it
    with monkeypatch.context() as patch:
        patch.setattr(exchange, "_rename_call", lambda: (lambda *_: errno.EINVAL, 2))  # as NFS does
        with pytest.raises(filelock.Timeout):
            lease().acquire()
    lease().acquire()


@pytest.fixture(params=["folder", pytest.param("objects", marks=pytest.mark.slow)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a store may lie."""
    if request.param == "folder":
        return tmp_path / "runs"
    place: str = request.getfixturevalue("s3")
    return place


def test_a_machine_that_vanishes_is_waited_for_a_minute_and_named(
    where: Path | str,
    clock: SimpleNamespace,
    on: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on("node1")
    store = Store(where)
    gone = store.lock("k")
    clock.s += 180
    assert store.renew(gone)
    on("node2")
    other = Store(where)
    assert other.try_lock("k") is None
    assert other.holder("k") == held_on("node1", "3 min 00 s")
    monkeypatch.setattr(locks, "BEAT_S", LOOK_S)
    began, holder = clock.s, ""
    while (lease := other.try_lock("k")) is None:
        holder = other.holder("k") or ""
        clock.s += LOOK_S
    assert holder.endswith(SILENT)
    assert clock.s == began + EXPIRES_S
    on("node1")  # it was only asleep
    assert not store.renew(gone)
    assert store.try_lock("k") is None and other.renew(lease)
    lease.release()
    assert lock_files(store) == [] and other.holder("k") is None
    with other.lock("k"):  # whose file has the name of the first one's
        assert lock_files(store) == ["k.1.lock"] and not store.renew(gone)
        gone.release()
        assert lock_files(store) == ["k.1.lock"]


def test_who_only_watches_hears_of_a_machine_that_vanished(
    store: Store, clock: SimpleNamespace, on: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was said to be at work for ever, as only who waits for a lock listened."""
    on("node1")
    store.lock("k")
    on("node2")
    monkeypatch.setattr(locks, "BEAT_S", LOOK_S)
    files, holder = Store(store.root).archive.files, ""
    for _ in range(int(EXPIRES_S / LOOK_S)):
        holder = files.holder("k") or ""
        clock.s += LOOK_S
    assert holder.endswith(SILENT)
    assert files.holder("k") is None


def test_whoever_is_heard_of_keeps_its_lock_whatever_clocks_say(
    store: Store, clock: SimpleNamespace, on: Callable[[str], None]
) -> None:
    on("node1")
    lease, other = store.lock("k"), Store(store.root)
    (file,) = (store.root / "locks").iterdir()
    for minute in range(12):
        on("node1")
        assert store.renew(lease)
        stamp = time.time() + (-1) ** minute * 3600  # as a server writes whose clock is wrong
        os.utime(file, (stamp, stamp))
        on("node2")
        for _ in range(int(EXPIRES_S / LOOK_S) - 1):
            assert other.try_lock("k") is None
            clock.s += LOOK_S


def test_whoever_slept_itself_does_not_take_that_for_silence(
    store: Store, clock: SimpleNamespace, on: Callable[[str], None]
) -> None:
    on("node1")
    store.lock("k")
    on("node2")
    other = Store(store.root)
    for _ in range(int(EXPIRES_S / LOOK_S)):
        assert other.try_lock("k") is None
        clock.s += 3600
    assert other.try_lock("k") is not None


def test_numbers_of_processes_mean_nothing_on_another_machine(
    store: Store, on: Callable[[str], None]
) -> None:
    """One whose process is known to be gone is free at once, on its own machine alone."""
    assert in_fork(lambda: store.lock("k")) == 0
    on("node2")
    assert store.try_lock("k") is None
    on(HERE)
    with store.lock("k"):
        pass


def test_a_number_that_another_process_has_by_now_is_told_from_the_holders(store: Store) -> None:
    assert in_fork(lambda: store.lock("k")) == 0
    (file,) = (store.root / "locks").iterdir()
    fields = json.loads(file.read_text())
    file.write_text(json.dumps({**fields, "pid": os.getpid()}))
    assert store.try_lock("k") is not None


@pytest.mark.parametrize("noticed", [False, True])
def test_a_killed_holder_is_gone(store: Store, noticed: bool) -> None:
    """Also while it is still in the table of processes, as nobody has noticed."""
    ready, write = os.pipe()

    def hold() -> None:
        store.lock("k")
        os.write(write, b".")
        signal.pause()

    child = fork(hold)
    try:
        assert os.read(ready, 1) == b"." and store.try_lock("k") is None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitid(os.P_PID, child, os.WEXITED | (0 if noticed else os.WNOWAIT))
    lease = store.try_lock("k")
    if not noticed:
        os.waitpid(child, 0)
    assert lease is not None


def test_of_several_that_see_a_lock_expire_one_has_it(
    store: Store, clock: SimpleNamespace, on: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a network file system shows one of them an old list of the files."""
    on("node1")
    store.lock("k")
    on("node2")
    files = LockFolder(store.root / "locks")
    first, second = Locks(files), Locks(files)
    for _ in range(int(EXPIRES_S / LOOK_S)):
        assert first.try_take("k") is None and second.try_take("k") is None
        clock.s += LOOK_S
    old = files.names()
    lease = first.try_take("k")
    assert lease is not None
    current = files.names
    listings = iter([old])
    with monkeypatch.context() as patch:
        patch.setattr(files, "names", lambda: next(listings, None) or current())
        assert second._take("k") is None
    assert lease.renew()
    # What is listed may also be long gone, so that its successor can be made: that is noticed.
    (store.root / "locks" / "k.7.lock").write_bytes((store.root / "locks" / "k.2.lock").read_bytes())
    listings = iter([old])
    with monkeypatch.context() as patch:
        patch.setattr(files, "names", lambda: next(listings, None) or current())
        (store.root / "locks" / "k.2.lock").unlink()
        assert second._take("k") is None
    assert lock_files(store) == ["k.7.lock"]


def test_threads_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "POLL_S", 0.001)
    monkeypatch.setattr(locks, "GATE_POLL_S", 0.001)
    inside, turns = [], []

    def work() -> None:
        mine = Locks(LockFolder(tmp_path / "locks"))
        for _ in range(5):
            with mine.take("k"):
                inside.append(1)
                turns.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert turns == [1] * 15 and list((tmp_path / "locks").iterdir()) == []


def test_where_no_thread_can_be_started_nothing_is_left(
    store: Store, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("no thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert refusal(store.lock, "k") == snapshot
    assert lock_files(store) == []


def test_interrupted_while_it_is_taken_no_lock_is_kept_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any look at its files: in a notebook, whoever asked for it next would wait as long as the
    process lives."""
    leases: list[locks.Lease] = []

    class Recorded(locks.Lease):
        def __init__(self, *about: Any) -> None:
            super().__init__(*about)
            leases.append(self)

    monkeypatch.setattr(locks, "Lease", Recorded)
    monkeypatch.setattr(locks, "BEAT_S", 1e6)
    calls, at = 0, 0

    def interrupting(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*about: Any) -> Any:
            nonlocal calls
            answer, calls = original(*about), calls + 1
            if calls == at:
                raise KeyboardInterrupt
            return answer

        return call

    for name in ("names", "read", "make", "remove"):
        monkeypatch.setattr(LockFolder, name, interrupting(getattr(LockFolder, name)))
    lease = None
    while lease is None:
        calls, at = 0, at + 1
        try:
            lease = Locks(LockFolder(tmp_path / str(at))).try_take("k")
        except KeyboardInterrupt:
            assert all(each._ended.is_set() for each in leases), at
    assert at > 8
    at = 0
    lease.release()


HOSTILE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("mine"),
    "nested": lambda path: path.write_text("[" * 900),
    "numbers": lambda path: path.write_text('{"pid": 1e999, "seconds": "x"}'),
    "odd": lambda path: path.write_text(
        json.dumps({**dict.fromkeys(("token", "started"), ""), "machine": HERE, "pid": -1})[:-1]
        + ', "host": "\\u001b[31m", "seconds": NaN}'
    ),
    "folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_no_holder_made_is_in_the_way_for_a_minute(
    store: Store, clock: SimpleNamespace, make: Callable[[Path], object]
) -> None:
    node(store)
    make(store.root / "locks" / "k.1.lock")
    assert store.try_lock("k") is None
    assert "\x1b" not in (store.holder("k") or "")
    began = clock.s
    store.lock("k").release()
    assert clock.s == began + EXPIRES_S


def test_collect_waits_until_it_knows_who_is_there(
    store: Store, clock: SimpleNamespace, on: Callable[[str], None]
) -> None:
    loose = node(store)
    on("node1")
    lease = store.lock("k")
    on("node2")
    other = Store(store.root)
    assert other.at_work() == held_on("node1", "0.0 s")
    renew = iter([False, False, True])

    def sleep(seconds: float) -> None:
        clock.s += seconds
        if next(renew, False):
            assert lease.renew()

    locks.time.sleep = sleep  # type: ignore[assignment]  # of the stand-in
    began = clock.s
    other.collect()
    assert other.nodes() == [loose] and clock.s - began == 3 * LOOK_S  # it was heard of
    began = clock.s
    other.collect()
    assert other.nodes() == [] and clock.s - began == EXPIRES_S
    assert lock_files(store) == [] and other.at_work() is None


def test_collect_ends_where_others_go_on_without_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    keys = [node(store, n) for n in range(3)]
    gate = store.root / "locks" / ".gate.2.lock"
    sizes = store._files.size

    def slow(*name: str) -> int:
        gate.write_text("of another process")  # which counted this one as gone
        return sizes(*name)

    monkeypatch.setattr(store._files, "size", slow)
    assert refusal(store.collect) == snapshot
    assert len(store.nodes()) == len(keys) - 1


@pytest.mark.usefixtures("clock")
def test_a_copy_of_a_store_at_work_is_one_of_its_own(store: Store, on: Callable[[str], None]) -> None:
    """At once where it is known for a copy, on the same machine; on another one after a minute."""
    key, lease = node(store), store.lock("k")
    place = store.root.with_name("copy")
    shutil.copytree(store.root, place)
    copy = Store(place)
    copy.verify_node(key)
    assert copy.holder("k") is None and copy.at_work() is None
    with copy.lock("k"):
        assert store.renew(lease) and store.try_lock("k") is None
    shutil.rmtree(place)
    shutil.copytree(store.root, place)
    on("node2")
    assert copy.try_lock("k") is None
    with copy.lock("k"):
        assert store.try_lock("k") is None


def test_a_store_under_another_path_is_no_copy(store: Store) -> None:
    """Linked folders stand in for a folder that is mounted twice."""
    with store.lock("k"):
        other = store.root.with_name("other")
        (other / "locks").mkdir(parents=True)
        shutil.copy(store.root / "store.json", other)
        (other / "locks" / "k.1.lock").hardlink_to(store.root / "locks" / "k.1.lock")
        assert Store(other).try_lock("k") is None
        (store.root.with_name("link")).symlink_to(store.root)
        assert Store(store.root.with_name("link")).try_lock("k") is None


def test_a_lock_that_is_let_go_while_another_path_looks(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between what its file says and whether that is a copy, the file goes."""
    with store.lock("k"):
        place = store.root.with_name("copy")
        shutil.copytree(store.root, place)
        read = LockFolder.read

        def read_and_gone(self: LockFolder, name: str) -> bytes | None:
            content = read(self, name)
            (place / "locks" / name).unlink(missing_ok=True)
            return content

        monkeypatch.setattr(LockFolder, "read", read_and_gone)
        assert Locks(LockFolder(place / "locks")).holder("k") is None


def test_a_lock_that_cannot_be_written_leaves_nothing_open(
    store: Store, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    store.lock("other").release()
    open_ = len(list(Path("/proc/self/fd").iterdir()))

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    for _ in range(3):
        assert refusal(store.lock, "k") == snapshot
    assert len(list(Path("/proc/self/fd").iterdir())) == open_


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_store_that_is_moved_or_removed_is_not_begun_anew(
    store: Store, how: str, snapshot: SnapshotAssertion
) -> None:
    key, lease = node(store), store.lock("k")
    store.write_checkpoint("k", {"w": torch.zeros(3)}, {"epoch": 1})
    before = files(store.root)
    place = store.root.with_name("elsewhere")
    store.root.rename(place)
    if how == "removed":
        shutil.rmtree(place)
    calls: list[Callable[[], Any]] = [
        lambda: node(store, 2),
        lambda: trial(store, "t", key),
        lambda: store.write_checkpoint("k", {"w": torch.ones(3)}, {"epoch": 2}),
        lambda: store.try_lock("j"),
        lambda: store.renew(lease),
    ]
    for call in calls:
        assert refusal(call) == snapshot
    lease.release()
    assert not store.root.exists()
    if how == "moved":
        assert files(place) == before
        with Store(place).lock("j"):
            node(Store(place), 2)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system that takes few files."""
    with small_disk(tmp_path / "small", "size=1m,nr_inodes=24") as mount:
        yield mount


def test_no_inodes_and_a_disk_that_turns_read_only(small: Path, snapshot: SnapshotAssertion) -> None:
    store = Store(small / "runs")
    key = node(store)
    store.write_checkpoint("k", {"w": torch.zeros(3)}, {"epoch": 1})
    with pytest.raises(OfframpError, match=r"inodes, see `df -i`"):
        for n in range(1, 9):
            node(store, n)
    keys = store.nodes()
    for each in keys:
        store.verify_node(each)
    store.discard_node(next(each for each in keys if each != key))
    lease = store.lock("k")
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    calls: list[Callable[[], Any]] = [
        lambda: node(store, 20),
        lambda: store.try_lock("j"),
        lambda: store.renew(lease),
        lambda: store.write_checkpoint("k", {"w": torch.ones(3)}, {"epoch": 2}),
    ]
    for call in calls:
        assert refusal(call) == snapshot
    lease.release()
    store.verify_node(key)
    checkpoint = store.read_checkpoint("k")
    assert checkpoint is not None and checkpoint[1] == {"epoch": 1}
