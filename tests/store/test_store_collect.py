"""What the store may throw away."""

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from store_kit import count_or_die, files, node, trial
from syrupy.assertion import SnapshotAssertion

from disks import truncate
from forks import in_fork
from offramp.hashing import digest
from offramp.store.store import Damaged, Store
from wording import stable


def left(store: Store, abandon: bool = False) -> set[str]:
    """What `unneeded` lists beside lock files."""
    places = [place for place, _ in store.unneeded(abandon) if place.parent.name != "locks"]
    return {place.relative_to(store.root).as_posix() for place in places}


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
    assert set(store.nodes()) == {ancestor, parent, child, planned, loose}
    assert store.collect() == expected > 100
    assert set(store.nodes()) == {ancestor, parent, child, planned}
    for key in store.nodes():
        store.verify_node(key)
    assert store.read_checkpoint("unfinished") is not None and store.read_checkpoint(child) is None
    assert store.unneeded() == [] and list((store.root / "locks").glob("*.lock")) == []
    assert left(store, abandon=True) == {f"nodes/{planned}", "plans/later.json", "work/unfinished"}
    trial(store, "later", planned)
    assert left(store, abandon=True) == {"work/unfinished"}
    store.collect(abandon=True)
    assert set(store.nodes()) == {ancestor, parent, child, planned}
    with store.lock("again"):  # its file was removed and is made anew
        assert store.try_lock("again") is None


def test_collect_leaves_a_run_at_work_alone(store: Store) -> None:
    loose, locked = node(store, 1), node(store, 2)
    for key in (loose, locked):
        store.write_checkpoint(key, {"w": torch.zeros(3)}, {})
    with store.lock(locked):
        assert left(store, abandon=True) == {f"work/{loose}"}
        store.collect(abandon=True)
        assert set(store.nodes()) == {loose, locked}
        assert store.read_checkpoint(locked) is not None
        assert store.try_lock(locked) is None  # looking must not break a lock
    assert left(store) == {f"nodes/{loose}", f"nodes/{locked}", f"work/{locked}"}
    store.collect()
    assert files(store.root) == []


def test_collect_takes_old_leftovers_only(store: Store) -> None:
    def work() -> None:
        os.fsync = count_or_die(1)
        node(store, 1)

    def checkpoint() -> None:
        os.fsync = count_or_die(1)
        store.write_checkpoint("k", {"w": torch.zeros(3)}, {})

    trial(store, "t")  # so that the version is there before the first kill
    assert in_fork(work) == in_fork(checkpoint) == -signal.SIGKILL
    debris = {p for p in files(store.root) if not p.startswith("trials/")}
    assert len(debris) == 5  # four files of a node and one checkpoint
    assert left(store) == set()
    then = time.time() - 4000
    for path in store.root.rglob("*"):
        os.utime(path, (then, then))
    assert len(left(store)) == 2
    assert store.collect() > 0
    assert [p for p in files(store.root) if not p.startswith("trials/")] == []
    assert store.has_trial("t")


def test_collect_refuses_when_a_trial_cannot_be_read(store: Store) -> None:
    key = node(store)
    trial(store, "t", key)
    truncate(store.root / "trials" / "t" / "trial.json")
    with pytest.raises(Damaged, match=r"trial\.json"):
        store.collect()
    assert store.has_node(key)


HARM: dict[str, Callable[[dict[str, Any]], Any]] = {
    "flipped": lambda plan: {**plan, "nodes": [plan["nodes"][0][::-1], *plan["nodes"][1:]]},
    "of_another": lambda plan: {**plan, "name": "other"},
    "unsealed": lambda plan: {"nodes": plan["nodes"]},
    "nodes_alone": lambda plan: plan["nodes"],
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_collect_refuses_when_a_plan_is_not_what_was_written(
    store: Store, harm: Callable[[Any], Any], snapshot: SnapshotAssertion
) -> None:
    key = node(store)
    store.plan_trial("later", [key])
    path = store.root / "plans" / "later.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps(plan))  # another layout is no damage
    assert left(store) == set()
    path.write_text(json.dumps(harm(plan)))
    for look in (store.unneeded, store.collect):
        with pytest.raises(Damaged) as caught:
            look()
        assert caught.value.path == path and stable(str(caught.value)) == snapshot
    store.verify_node(key)
    assert path.exists()
    store.plan_trial("later", [key])  # a study that is run again writes it anew
    assert left(store) == set()
    path.write_text(json.dumps(harm(plan)))
    assert left(store, abandon=True) == {f"nodes/{key}", "plans/later.json"}
    store.collect(abandon=True)
    assert files(store.root) == []


def test_a_plan_under_another_name_is_refused(store: Store) -> None:
    store.plan_trial("later", [node(store)])
    (store.root / "plans" / "later.json").rename(store.root / "plans" / "other.json")
    with pytest.raises(Damaged, match=r"other\.json"):
        store.unneeded()
