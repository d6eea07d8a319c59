from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from offramp.errors import OfframpError
from offramp.hashing import digest
from offramp.study.store import Damaged, Store

NODE_FILES = ("node.json", "history.parquet", "cost.json", "weights.safetensors")


def node(store: Store, n: int = 0, parents: tuple[str, ...] = (), fill: float = 1.0) -> str:
    """A small node that reads `n` and `parents`; its key."""
    reads = {"n": n, "parents": list(parents), "rate": 0.1}
    key = digest(reads)
    store.write_node(
        key,
        reads,
        {"phase": "joint"},
        {"torch": "2"},
        {"epochs": 2, "loss": float("nan")},
        {"a.weight": torch.full((4, 3), fill), "a.steps": torch.tensor(7), "none": torch.ones(0)},
        pd.DataFrame({"epoch": [1, 2], "loss": [0.5, float("inf")]}),
        {"seconds": 1.5},
    )
    return key


def trial(store: Store, name: str, *keys: str) -> None:
    store.write_trial(name, {"phases": [{"key": k} for k in keys]}, {"test": np.eye(3)})


def forked(work: Callable[[], object]) -> int:
    """Run `work` in a child; its exit status, negative when a signal ended it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside torch's idle threads
        child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def count_or_die(at: int) -> Callable[[int], None]:
    """An `os.fsync` that kills its process, as `kill -9` does, when called for the `at`-th time."""
    sync, calls = os.fsync, [0]

    def fsync(handle: int) -> None:
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    return fsync


def files(root: Path) -> list[str]:
    """What lies in the store beside locks and the version."""
    paths = (p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    return sorted(p for p in paths if not p.startswith("locks/") and p != "store.json")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def test_node_comes_back_as_written(store: Store) -> None:
    assert store.nodes() == []
    key = node(store)
    assert store.nodes() == [key] and store.has_node(key)
    store.verify_node(key)
    record = store.read_node(key)
    assert digest(record.reads) == record.key == key
    assert record.labels == {"phase": "joint"} and np.isnan(record.summary["loss"])
    weights = store.node_weights(key)
    assert torch.equal(weights["a.weight"], torch.ones(4, 3))
    assert weights["a.steps"].shape == () and weights["a.steps"].dtype == torch.int64
    assert store.node_history(key)["loss"].tolist() == [0.5, float("inf")]
    assert store.node_cost(key) == {"seconds": 1.5}


def test_weights_may_share_storage_and_be_channels_last(store: Store) -> None:
    kernel = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last).requires_grad_()
    key = digest({})
    frame = pd.DataFrame({"epoch": [1]})
    store.write_node(key, {}, {}, {}, {}, {"a": kernel, "b": kernel, "c": kernel[1:]}, frame, {})
    weights = store.node_weights(key)
    assert torch.equal(weights["a"], kernel) and torch.equal(weights["b"], kernel)
    assert torch.equal(weights["c"], kernel[1:])


def test_key_must_be_the_digest_of_reads(store: Store) -> None:
    with pytest.raises(ValueError, match="not the digest"):
        store.write_node("0" * 64, {"n": 1}, {}, {}, {}, {}, pd.DataFrame(), {})
    assert files(store.root) == []


def test_finished_node_is_not_written_again(store: Store) -> None:
    key = node(store)
    before = (store.root / "nodes" / key).stat().st_ino
    assert node(store, fill=2.0) == key
    assert (store.root / "nodes" / key).stat().st_ino == before
    assert store.node_weights(key)["a.weight"][0, 0] == 1.0


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("file", NODE_FILES)
def test_damage_to_a_node_is_named_and_mended(
    store: Store, file: str, harm: Callable[[Path], None]
) -> None:
    key = node(store)
    path = store.root / "nodes" / key / file
    harm(path)
    with pytest.raises(Damaged, match="run its study again") as caught:
        store.verify_node(key)
    assert caught.value.path == path and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    read: dict[str, Callable[[str], Any]] = {
        "node.json": store.read_node,
        "history.parquet": store.node_history,
        "cost.json": store.node_cost,
        "weights.safetensors": store.node_weights,
    }
    for name, method in read.items():
        if file in (name, "node.json"):
            with pytest.raises(Damaged):
                method(key)
        else:
            method(key)
    # The cheap look sees all but a flipped bit outside node.json.
    assert store.has_node(key) == (harm is flip and file != "node.json")
    node(store)
    store.verify_node(key)


@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("file", ["trial.json", "logits.npz"])
def test_damage_to_a_trial_is_named_and_mended(
    store: Store, file: str, harm: Callable[[Path], None]
) -> None:
    trial(store, "t1", node(store))
    path = store.root / "trials" / "t1" / file
    harm(path)
    with pytest.raises(Damaged) as caught:
        store.trial_logits("t1")
    assert caught.value.path == path
    trial(store, "t1", node(store))
    assert store.has_trial("t1") and np.array_equal(store.trial_logits("t1")["test"], np.eye(3))


def test_edited_node_and_node_under_another_name_are_damaged(store: Store) -> None:
    key = node(store)
    path = store.root / "nodes" / key / "node.json"
    text = path.read_text()
    path.write_text(text.replace('"epochs": 2', '"epochs": 3'))
    with pytest.raises(Damaged, match="seal"):
        store.read_node(key)
    path.write_text(text)
    path.parent.rename(store.root / "nodes" / "other")
    assert not store.has_node("other")
    with pytest.raises(Damaged, match="describe 'other'"):
        store.read_node("other")
    with pytest.raises(Damaged, match="missing"):
        store.read_node(key)


def test_damaged_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(Damaged(Path("a"), "is missing")))
    assert isinstance(error, Damaged) and error.path == Path("a") and "is missing" in str(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_node_is_not_called_damaged(store: Store) -> None:
    key = node(store)
    (store.root / "nodes" / key / "node.json").chmod(0)
    with pytest.raises(OfframpError, match="cannot read") as caught:
        store.has_node(key)
    assert not isinstance(caught.value, Damaged)


def test_want_of_file_handles_is_not_called_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = node(store)

    def read_bytes(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(OfframpError, match="Too many open files") as caught:
        store.has_node(key)
    assert not isinstance(caught.value, Damaged)


def test_discard(store: Store) -> None:
    key = node(store)
    store.discard_node(key)
    store.discard_node(key)
    assert store.nodes() == [] and files(store.root) == []


def test_trials(store: Store) -> None:
    key = node(store)
    trial(store, "joint-42-ab", key)
    trial(store, "joint-43-cd", key)
    trial(store, "joint-43", key)
    assert store.trials() == ["joint-42-ab", "joint-43", "joint-43-cd"]
    assert store.read_trial("joint-43") == {"phases": [{"key": key}]}
    assert store.find_trial("joint-42") == "joint-42-ab"
    assert store.find_trial("joint-43") == "joint-43"
    with pytest.raises(OfframpError, match=r"begins 3 trials; .*joint-42-ab, joint-43, joint-43-cd"):
        store.find_trial("joint-4")
    with pytest.raises(OfframpError, match="did you mean 'joint-42-ab'"):
        store.find_trial("jiont-42-ab")
    trial(store, "joint-43")
    assert store.read_trial("joint-43") == {"phases": []}
    with pytest.raises(TypeError, match="objects"):
        store.write_trial("bad", {}, {"test": np.array([object()])})


def test_no_trial_yet(store: Store) -> None:
    with pytest.raises(OfframpError, match="run a study first"):
        store.find_trial("a")
    assert store.unneeded() == [] and store.collect(dry_run=False) == 0
    assert not store.root.exists(), "reading creates nothing"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/a", "A", "a b", "a\n", "é", "a" * 201])
def test_names_stay_in_the_store(store: Store, name: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.has_node(name),
        lambda: store.discard_node(name),
        lambda: store.lock(name),
        lambda: store.try_lock(name),
        lambda: store.write_trial(name, {}, {}),
        lambda: store.read_trial(name),
        lambda: store.plan_trial(name, []),
        lambda: store.plan_trial("fine", [name]),
        lambda: store.write_checkpoint(name, {}, {}),
        lambda: store.drop_checkpoint(name),
    ]
    for call in calls:
        with pytest.raises(OfframpError, match="no key or trial id"):
            call()


def test_link_out_of_the_store_is_refused(store: Store, tmp_path: Path) -> None:
    key = node(store)
    (store.root / "nodes" / key).rename(tmp_path / key)
    (store.root / "nodes" / key).symlink_to(tmp_path / key)
    with pytest.raises(OfframpError, match="not a link"):
        store.read_node(key)


def test_version(store: Store, tmp_path: Path) -> None:
    node(store)
    path = store.root / "store.json"
    Store(store.root)
    path.write_text(json.dumps({"format": 2}))
    with pytest.raises(OfframpError, match="format 2 and this offramp reads up to 1; update"):
        Store(store.root)
    for text in ("", "{", "[]", "{}", '{"format": "1"}'):
        path.write_text(text)
        with pytest.raises(OfframpError, match="names no format"):
            Store(store.root)
    path.unlink()
    with pytest.raises(OfframpError, match="no store"):
        Store(store.root)
    (tmp_path / "file").touch()
    with pytest.raises(OfframpError, match="not a folder"):
        Store(tmp_path / "file")


def test_checkpoint_comes_back_and_is_replaced(store: Store) -> None:
    assert store.read_checkpoint("k") is None
    for epoch in (1, 2):
        tensors = {
            "w": torch.full((2, 2), float(epoch)),
            "rng": torch.tensor([1], dtype=torch.uint8),
        }
        store.write_checkpoint("k", tensors, {"epoch": epoch, "losses": [float("inf"), 0.1]})
    found = store.read_checkpoint("k")
    assert found is not None
    assert found[1] == {"epoch": 2, "losses": [float("inf"), 0.1]}
    assert torch.equal(found[0]["w"], torch.full((2, 2), 2.0)) and found[0]["rng"].dtype == torch.uint8
    assert files(store.root) == ["work/k/checkpoint.safetensors"]
    store.drop_checkpoint("k")
    store.drop_checkpoint("k")
    assert store.read_checkpoint("k") is None and files(store.root) == []


def test_damaged_checkpoint_counts_as_none(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.write_checkpoint("k", {"w": torch.arange(6.0)}, {"epoch": 3})
    path = store.root / "work" / "k" / "checkpoint.safetensors"
    data = path.read_bytes()
    bad = [data[:n] for n in (0, 4, 40, len(data) - 1)]
    bad += [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(0, len(data), 3)]
    caplog.set_level(logging.WARNING)
    for content in bad:
        caplog.clear()
        path.write_bytes(content)
        found = store.read_checkpoint("k")
        # A flip that leaves the values as they were (white space in the header) may pass.
        if found is not None:
            assert torch.equal(found[0]["w"], torch.arange(6.0)) and found[1] == {"epoch": 3}
        else:
            assert str(path) in caplog.text and "starts over" in caplog.text
    assert store.read_checkpoint("k") is None
    path.write_bytes(data)
    assert store.read_checkpoint("k") is not None
    (store.root / "work" / "other").mkdir()
    path.rename(store.root / "work" / "other" / path.name)
    assert store.read_checkpoint("other") is None


def test_lock_excludes_and_is_released(store: Store) -> None:
    with store.lock("k"):
        assert store.try_lock("k") is None
        assert forked(lambda: exit_if(store.try_lock("k") is not None)) == 0
        other = store.try_lock("k2")
        assert other is not None
        other.release()
    held = store.try_lock("k")
    assert held is not None
    held.release()


def exit_if(wrong: bool) -> None:
    if wrong:
        os._exit(3)


HOLD = """
import sys, time
from pathlib import Path
from offramp.study.store import Store
held = Store(Path(sys.argv[1])).lock("k")
print("held", flush=True)
time.sleep(600)
"""


def test_lock_is_released_when_its_holder_is_killed(store: Store) -> None:
    command = [sys.executable, "-c", HOLD, str(store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            assert store.try_lock("k") is None
        finally:
            holder.kill()
    held = store.try_lock("k")
    assert held is not None
    held.release()


WRITE = """
import sys
from pathlib import Path
import numpy as np, pandas as pd, torch
from offramp.hashing import digest
from offramp.study.store import Store
store, me = Store(Path(sys.argv[1])), float(sys.argv[2])
sys.stdin.readline()
for n in range(20):
    reads = {"n": n}
    weights = {"w": torch.full((1000,), me)}
    frame = pd.DataFrame({"me": [me]})
    store.write_node(digest(reads), reads, {}, {}, {}, weights, frame, {"me": me})
    store.verify_node(digest(reads))
    store.write_trial("t", {"n": n, "me": me}, {"x": np.full(10, me)})
    store.trial_logits("t")
"""


def test_two_processes_write_the_same_keys(store: Store) -> None:
    command = [sys.executable, "-c", WRITE, str(store.root)]
    writers = [
        subprocess.Popen([*command, me], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for me in ("1", "2")
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, problem = writer.communicate()
        # A trial that both replace may be gone for an instant; a node, once there, may not.
        assert writer.returncode == 0 or "trials/t/" in problem.splitlines()[-1], problem
    done = store.nodes()
    assert len(done) >= 1
    for key in done:
        store.verify_node(key)
        me = store.node_cost(key)["me"]
        assert set(store.node_weights(key)["w"].tolist()) == {me}
        assert store.node_history(key)["me"].tolist() == [me]
    assert store.trial_logits("t")["x"].tolist() == [store.read_trial("t")["me"]] * 10
    assert not [f for f in files(store.root) if f.startswith("staging")]


def test_killed_while_writing_a_node(store: Store) -> None:
    kept = node(store, 1)
    ended = []
    for at in range(1, 20):

        def work(at: int = at) -> None:
            os.fsync = count_or_die(at)
            node(store, 2)

        ended.append(forked(work))
        for key in store.nodes():
            store.verify_node(key)
        assert store.has_node(kept)
        if ended[-1] == 0:
            break
        if len(store.nodes()) == 2:  # killed after the rename: it is whole, and it counts
            store.discard_node(next(key for key in store.nodes() if key != kept))
    assert ended[-1] == 0 and set(ended[:-1]) == {-signal.SIGKILL} and len(ended) > 4
    assert len(store.nodes()) == 2


def test_killed_while_replacing_a_checkpoint(store: Store) -> None:
    store.write_checkpoint("k", {"w": torch.zeros(3)}, {"epoch": 1})
    ended = []
    for at in range(1, 10):

        def work(at: int = at) -> None:
            os.fsync = count_or_die(at)
            store.write_checkpoint("k", {"w": torch.ones(3)}, {"epoch": 2})

        ended.append(forked(work))
        found = store.read_checkpoint("k")
        assert found is not None and found[1]["epoch"] == 1 + int(found[0]["w"][0])
        if ended[-1] == 0:
            break
    assert ended == [-signal.SIGKILL, -signal.SIGKILL, 0] and found[1]["epoch"] == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    key = node(store)
    store.write_checkpoint("k", {"w": torch.zeros(3)}, {"epoch": 1})
    before = files(store.root)
    write = Path.write_bytes

    def fills_up(path: Path, data: bytes) -> int:
        write(path, data[: len(data) // 2])
        raise OSError(code, os.strerror(code))

    calls: list[Callable[[], object]] = [
        lambda: node(store, 9),
        lambda: trial(store, "t", key),
        lambda: store.plan_trial("t", [key]),
        lambda: store.write_checkpoint("k", {"w": torch.ones(3)}, {"epoch": 2}),
    ]
    for target, name in ((Path, "write_bytes"), (os, "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, fills_up if name == "write_bytes" else no_space(code))
            for call in calls:
                with pytest.raises(OfframpError, match=r"disk is full while writing .*; free space"):
                    call()
                assert files(store.root) == before
    found = store.read_checkpoint("k")
    assert found is not None and found[1] == {"epoch": 1}
    for call in calls:
        call()


def no_space(code: int) -> Callable[[int], None]:
    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    return fsync


def test_really_full_disk(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a small file system here")
    try:
        store = Store(mount / "runs")
        store.write_checkpoint("k", {"w": torch.zeros(3)}, {"epoch": 1})
        before = files(store.root)
        with pytest.raises(OfframpError, match="disk is full"):
            store.write_checkpoint("k", {"w": torch.zeros(100_000)}, {"epoch": 2})
        with pytest.raises(OfframpError, match="disk is full"):
            store.write_trial("t", {}, {"x": np.zeros(100_000)})
        assert files(store.root) == before
        node(store)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def left(store: Store, abandon: bool = False) -> set[str]:
    """What `unneeded` lists beside lock files."""
    found = store.unneeded(abandon)
    return {p.relative_to(store.root).as_posix() for p, _ in found if p.parent.name != "locks"}


def test_collect_keeps_what_is_needed(store: Store) -> None:
    ancestor = node(store, 1)
    parent = node(store, 2, (ancestor,))
    child = node(store, 3, (parent,))
    planned, loose = node(store, 4), node(store, 5)
    trial(store, "t", child)
    store.plan_trial("later", [planned, digest("not yet there")])
    for key in (child, "unfinished"):
        store.write_checkpoint(key, {"w": torch.zeros(3)}, {})
    assert left(store) == {f"nodes/{loose}", f"work/{child}"}
    expected = sum(size for _, size in store.unneeded())
    assert expected > 100 and store.collect(dry_run=True) == expected
    assert set(store.nodes()) == {ancestor, parent, child, planned, loose}
    assert store.collect(dry_run=False) == expected
    assert set(store.nodes()) == {ancestor, parent, child, planned}
    for key in store.nodes():
        store.verify_node(key)
    assert store.read_checkpoint("unfinished") is not None and store.read_checkpoint(child) is None
    assert store.unneeded() == [] and list((store.root / "locks").glob("*.lock")) == []
    assert left(store, abandon=True) == {
        f"nodes/{planned}",
        "plans/later.json",
        "work/unfinished",
    }
    trial(store, "later", planned)
    assert left(store, abandon=True) == {"work/unfinished"}
    store.collect(dry_run=False, abandon=True)
    assert set(store.nodes()) == {ancestor, parent, child, planned}
    with store.lock("again"):  # its file was removed and is made anew
        assert store.try_lock("again") is None


def test_collect_leaves_a_run_at_work_alone(store: Store) -> None:
    loose, locked = node(store, 1), node(store, 2)
    for key in (loose, locked):
        store.write_checkpoint(key, {"w": torch.zeros(3)}, {})
    with store.lock(locked):
        assert left(store, abandon=True) == {f"work/{loose}"}
        store.collect(dry_run=False, abandon=True)
        assert set(store.nodes()) == {loose, locked}
        assert store.read_checkpoint(locked) is not None
        assert store.try_lock(locked) is None, "looking must not break a lock"
    assert left(store) == {f"nodes/{loose}", f"nodes/{locked}", f"work/{locked}"}
    store.collect(dry_run=False)
    assert files(store.root) == []


def test_collect_takes_old_leftovers_only(store: Store) -> None:
    def work() -> None:
        os.fsync = count_or_die(1)
        node(store, 1)

    def checkpoint() -> None:
        os.fsync = count_or_die(1)
        store.write_checkpoint("k", {"w": torch.zeros(3)}, {})

    trial(store, "t")  # so that the version is there before the first kill
    assert forked(work) == forked(checkpoint) == -signal.SIGKILL
    debris = {p for p in files(store.root) if not p.startswith("trials/")}
    assert len(debris) == 5, "four files of a node and one checkpoint"
    assert left(store) == set()
    then = time.time() - 4000
    for path in store.root.rglob("*"):
        os.utime(path, (then, then))
    assert len(left(store)) == 2
    assert store.collect(dry_run=False) > 0
    assert [p for p in files(store.root) if not p.startswith("trials/")] == []
    assert store.has_trial("t")


def test_collect_refuses_when_a_trial_cannot_be_read(store: Store) -> None:
    key = node(store)
    trial(store, "t", key)
    truncate(store.root / "trials" / "t" / "trial.json")
    with pytest.raises(Damaged, match=r"trial\.json"):
        store.collect(dry_run=False)
    assert store.has_node(key)
