"""Locks, kills and full disks."""

import errno
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from store_kit import count_or_die, files, history, node, trial
from syrupy.assertion import SnapshotAssertion

import records
from disks import small_disk
from forks import fork, in_fork, status
from offramp.store.store import Damaged, Store
from wording import refusal


def test_lock_excludes_and_is_released(store: Store) -> None:
    with store.lock("k"):
        assert store.try_lock("k") is None
        assert in_fork(lambda: None if store.try_lock("k") is None else 1 / 0) == 0
        other = store.try_lock("k2")
        assert other is not None
        other.release()
    lease = store.try_lock("k")
    assert lease is not None
    lease.release()


def test_two_processes_write_the_same_keys(store: Store) -> None:
    gate, gatekeeper = os.pipe()

    def write(me: float) -> None:
        os.close(gatekeeper)
        os.read(gate, 1)  # ends when both writers are there
        mine = Store(store.root)
        for n in range(20):
            record = records.node({"n": n})
            weights, rows = {"w": torch.full((1000,), me)}, history(value=me)
            mine.write_node(record, weights, rows, records.cost(seconds={"me": me}))
            mine.verify_node(record.key)
            logits = {"test": np.full((10, 1, 2), me), "test_labels": np.zeros(10, int)}
            mine.write_trial("t", records.manifest(options={"n": n, "me": me}), logits)
            try:  # the other may replace it meanwhile; a node, once there, stays
                mine.trial_logits("t")
            except Damaged as error:
                assert "/trials/t/" in str(error)

    writers = [fork(partial(write, me)) for me in (1.0, 2.0)]
    os.close(gatekeeper)
    assert [status(writer) for writer in writers] == [0, 0]
    os.close(gate)
    done = store.nodes()
    assert len(done) == 20
    for key in done:
        store.verify_node(key)
        me = store.node_cost(key).seconds["me"]
        assert set(store.node_weights(key)["w"].tolist()) == {me}
        assert set(store.node_history(key)["value"]) == {me}
    assert set(store.trial_logits("t")["test"].flat) == {store.read_trial("t").options["me"]}
    assert not [f for f in files(store.root) if f.startswith("staging")]


def test_killed_while_writing_a_node(store: Store) -> None:
    intact = node(store, 1)
    ended = []
    for at in range(1, 20):

        def work(at: int = at) -> None:
            os.fsync = count_or_die(at)
            node(store, 2)

        ended.append(in_fork(work))
        for key in store.nodes():
            store.verify_node(key)
        assert store.has_node(intact)
        if ended[-1] == 0:
            break
        if len(store.nodes()) == 2:  # killed after the rename: it is whole, and it counts
            store.discard_node(next(key for key in store.nodes() if key != intact))
    assert ended[-1] == 0 and set(ended[:-1]) == {-signal.SIGKILL} and len(ended) > 4
    assert len(store.nodes()) == 2


def test_killed_while_replacing_a_checkpoint(store: Store) -> None:
    store.write_checkpoint("k", {"w": torch.zeros(3)}, {"epoch": 1})
    ended = []
    for at in range(1, 10):

        def work(at: int = at) -> None:
            os.fsync = count_or_die(at)
            store.write_checkpoint("k", {"w": torch.ones(3)}, {"epoch": 2})

        ended.append(in_fork(work))
        checkpoint = store.read_checkpoint("k")
        assert checkpoint is not None and checkpoint[1]["epoch"] == 1 + int(checkpoint[0]["w"][0])
        if ended[-1] == 0:
            break
    assert ended == [-signal.SIGKILL, -signal.SIGKILL, 0] and checkpoint[1]["epoch"] == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=["disk", "quota"])
def test_full_disk_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, snapshot: SnapshotAssertion
) -> None:
    key = node(store)
    store.write_checkpoint("k", {"w": torch.zeros(3)}, {"epoch": 1})
    before = files(store.root)
    write = Path.write_bytes

    def no_space(_: int) -> int:
        raise OSError(code, os.strerror(code))

    def fills_up(path: Path, data: bytes) -> int:
        write(path, data[: len(data) // 2])
        return no_space(0)

    calls: list[Callable[[], object]] = [
        lambda: node(store, 9),
        lambda: trial(store, "t", key),
        lambda: store.plan_trial("t", [key]),
        lambda: store.write_checkpoint("k", {"w": torch.ones(3)}, {"epoch": 2}),
    ]
    for target, name, fails in ((Path, "write_bytes", fills_up), (os, "fsync", no_space)):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, fails)
            for call in calls:
                assert refusal(call) == snapshot
                assert files(store.root) == before
    checkpoint = store.read_checkpoint("k")
    assert checkpoint is not None and checkpoint[1] == {"epoch": 1}
    for call in calls:
        call()


def test_really_full_disk(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    with small_disk(tmp_path / "small", "size=256k") as mount:
        store = Store(mount / "runs")
        store.write_checkpoint("k", {"w": torch.zeros(3)}, {"epoch": 1})
        before = files(store.root)
        assert (
            refusal(store.write_checkpoint, "k", {"w": torch.zeros(100_000)}, {"epoch": 2}) == snapshot
        )
        assert refusal(store.write_trial, "t", records.manifest(), {"x": np.zeros(100_000)}) == snapshot
        assert files(store.root) == before
        node(store)
