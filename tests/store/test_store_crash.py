"""Locks, kills and full disks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from store_kit import count_or_die, files, forked, node, trial

import records
from disks import small_disk
from offramp.errors import OfframpError
from offramp.store.store import Store


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
from offramp.store.store import Store
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
import numpy as np, pandas as pd, records, torch
from offramp.store.store import Store
store, me = Store(Path(sys.argv[1])), float(sys.argv[2])
sys.stdin.readline()
for n in range(20):
    node = records.node({"n": n})
    weights = {"w": torch.full((1000,), me)}
    frame = pd.DataFrame({"me": [me]})
    store.write_node(node, weights, frame, records.cost(seconds={"me": me}))
    store.verify_node(node.key)
    store.write_trial("t", records.manifest(options={"n": n, "me": me}), {"x": np.full(10, me)})
    store.trial_logits("t")
"""


def test_two_processes_write_the_same_keys(store: Store) -> None:
    command = [sys.executable, "-c", WRITE, str(store.root)]
    tests = str(Path(__file__).parents[1])
    places = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    writers = [
        subprocess.Popen(
            [*command, me], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=places
        )
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
        me = store.node_cost(key).seconds["me"]
        assert set(store.node_weights(key)["w"].tolist()) == {me}
        assert store.node_history(key)["me"].tolist() == [me]
    assert store.trial_logits("t")["x"].tolist() == [store.read_trial("t").options["me"]] * 10
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


@pytest.mark.parametrize(
    ("code", "said"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "your quota is used up")],
)
def test_full_disk_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
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
                with pytest.raises(OfframpError, match=rf"{said} while writing .*; free space"):
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
    with small_disk(tmp_path / "small", "size=256k") as mount:
        store = Store(mount / "runs")
        store.write_checkpoint("k", {"w": torch.zeros(3)}, {"epoch": 1})
        before = files(store.root)
        with pytest.raises(OfframpError, match="disk is full"):
            store.write_checkpoint("k", {"w": torch.zeros(100_000)}, {"epoch": 2})
        with pytest.raises(OfframpError, match="disk is full"):
            store.write_trial("t", records.manifest(), {"x": np.zeros(100_000)})
        assert files(store.root) == before
        node(store)
