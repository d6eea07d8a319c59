"""`kill -9` at any point, and files that were cut short or altered."""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit import (
    began,
    check_equal,
    check_sound,
    check_tidy,
    closed,
    end,
    finish,
    hashes,
    helper,
    locks_free,
    notes,
    reused,
    start,
    trained,
)

from disks import flip
from forks import Forked
from offramp.engine.values import IMAGES, frozen_inputs
from offramp.store.store import Store
from offramp.study.plan.plan import Plan
from offramp.study.run.events import GroupStarted
from support import tiny_plan, tiny_study

# Caches go to files here, so that what a killed process leaves of them is seen. Two trials on one trunk,
# and heads that are fused: test_resuming interrupts phases that build on each other.
STUDY: dict[str, Any] = {
    "strategies": ["baseline", "two-stage"],
    "recipe": {"epochs": 3, "batch_size": 8, "patience": 3, "optimizer": "adam"},
    "execution": {"cache_memory": 0},
}
PHASES = 1 + 3  # backbone, three exits
STEPS = 4  # an epoch


def plan() -> Plan:
    return tiny_plan(tiny_study(**STUDY))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of a run that nobody disturbed."""
    return finish(plan(), tmp_path_factory.mktemp("whole"))[0]


# Where to die: what is called, for the n-th time; nodes kept by then; epochs done by the phase at hand.
POINTS: dict[str, tuple[str, int, int, int]] = {
    "before anything": ("offramp.store.store:Store.plan_trial", 1, 0, 0),
    "first step": ("offramp.engine.fit:step", 1, 0, 0),
    "mid-epoch, nothing saved": ("offramp.engine.fit:step", 3, 0, 0),
    "mid-epoch, one epoch saved": ("offramp.engine.fit:step", STEPS + 2, 0, 1),
    "while a checkpoint replaces another": ("offramp.files:sync", 9, 0, 1),
    "while the first cache is built": ("offramp.engine.cache:Cache.reserve", 1, 1, 0),
    "while a cache has one value": ("offramp.engine.cache:Cache.reserve", 3, 1, 0),
    "between the caches of two splits": ("offramp.engine.cache:Cache.filled", 2, 1, 0),
    "mid-epoch of fused heads": ("offramp.engine.fit:step", 3 * STEPS + 3 * STEPS + 4, 1, 1),
    "after the last epoch": ("offramp.study.run.run:Run._keep", 2, 1, 2),
    "while a node is written": ("offramp.store.disk:new_folder", 3, 1, 2),
    "while a node's files are flushed": ("offramp.files:sync", 13, 0, 2),
    "between a node and its checkpoint": ("offramp.store.store:Store.drop_checkpoint", 1, 1, 0),
    "between phases": ("offramp.store.store:Store.drop_checkpoint", 2, 2, 2),
    "before a trial is written": ("offramp.study.run.trials:write", 2, PHASES, 0),
    "while a trial is written": ("offramp.store.store:Store.write_trial", 2, PHASES, 0),
}


@pytest.fixture(scope="module")
def child() -> Iterator[Forked]:
    with helper() as process:
        yield process


ALIKE = {
    *("first step", "between phases", "before a trial is written", "between the caches of two splits"),
}
"""Points beside which others lie, or at which tests/store/test_store_crash.py kills."""


@pytest.mark.journey
@pytest.mark.parametrize(
    "point", [pytest.param(p, marks=[pytest.mark.long] if p in ALIKE else []) for p in POINTS]
)
def test_killed_a_run_goes_on_to_the_same_bits(
    tmp_path: Path, whole: Store, child: Forked, point: str
) -> None:
    target, call, nodes, epochs = POINTS[point]
    start(child, tmp_path, STUDY, kill=[target, call], conduct={"checkpoint_seconds": 0})
    status, lines = end(child)
    assert status == -signal.SIGKILL
    store = Store(tmp_path)
    check_sound(store)
    assert len(store.nodes()) == nodes
    assert {key for kind, keys in lines if kind == "Finished" for key in keys} <= set(store.nodes())
    assert locks_free(plan(), store)
    assert not [p for p in (tmp_path / "caches").rglob("*") if p.is_file()]
    done = set(store.nodes())

    _, events = finish(plan(), tmp_path)
    assert reused(events) == done and set(trained(events)) == set(plan().nodes) - done
    resumed = [e.epoch for e in events if isinstance(e, GroupStarted)]
    assert not resumed or resumed[0] == epochs
    check_equal(whole, store)
    for folder in ("work", "caches"):
        assert not [p for p in (tmp_path / folder).rglob("*") if p.is_file()]


def test_a_run_that_nobody_kills_ends_in_the_same_bits(
    tmp_path: Path, whole: Store, child: Forked
) -> None:
    start(child, tmp_path, STUDY)
    status, lines = end(child)
    assert status == 0 and sum(kind == "Finished" for kind, _ in lines) == PHASES
    check_equal(whole, Store(tmp_path))


def test_the_study_builds_caches(whole: Store) -> None:
    """Else the points above would not be what they say."""
    nodes = plan().nodes.values()
    cut = [v for node in nodes for v in frozen_inputs(node).values() if v.point != IMAGES]
    assert len(set(cut)) == 3 and len(whole.nodes()) == PHASES


def test_a_checkpoint_of_another_state_would_be_noticed(
    tmp_path: Path, whole: Store, child: Forked
) -> None:
    """A negative control: going on from another optimizer's momenta gives other bits."""
    kill = ["offramp.engine.fit:step", STEPS + 2]
    start(child, tmp_path, STUDY, kill=kill, conduct={"checkpoint_seconds": 0})
    assert end(child)[0] == -signal.SIGKILL
    store = Store(tmp_path)
    (key,) = (p.name for p in (tmp_path / "work").iterdir())
    saved = store.read_checkpoint(key)
    assert saved is not None
    tensors, state = saved
    # Every momentum, and by enough that no rounding of a weight takes it back.
    momenta = [n for n in tensors if n.startswith("optimizer/") and n.endswith("exp_avg")]
    assert momenta
    for name in momenta:
        tensors[name] = tensors[name] * 1.01
    store.write_checkpoint(key, tensors, state)
    finish(plan(), tmp_path)
    assert hashes(store)[key] != hashes(whole)[key]


# Damage.


@pytest.fixture
def copy(whole: Store, tmp_path: Path) -> Path:
    """A store that holds all, and may be damaged."""
    return Path(shutil.copytree(whole.root, tmp_path / "store"))


# Every damage of every file: tests/store/test_store_damage.py.
@pytest.mark.parametrize(("file", "damage"), [("weights.safetensors", flip), ("node.json", flip)])
def test_a_damaged_node_is_named_and_it_alone_is_trained_again(
    copy: Path, whole: Store, file: str, damage: Callable[[Path], None]
) -> None:
    parent = next(k for k, n in plan().nodes.items() if n.name == "backbone")  # exits build on it
    path = copy / "nodes" / parent / file
    damage(path)
    store, events = finish(plan(), copy)
    assert trained(events) == began(events) == [parent]
    assert reused(events) == set(plan().nodes) - {parent}
    (note,) = notes(events)
    assert note.startswith(f"{path} ") and "computed again" in note
    assert all(closed(events).values())
    assert hashes(store) == hashes(whole)
    check_sound(store)
    check_tidy(store)


@pytest.mark.parametrize(("file", "damage"), [("trial.json", flip), ("logits.npz", Path.unlink)])
def test_a_damaged_trial_is_named_and_it_alone_is_written_again(
    copy: Path, whole: Store, file: str, damage: Callable[[Path], None]
) -> None:
    trial = plan().trials[1].id
    path = copy / "trials" / trial / file
    damage(path)
    store, events = finish(plan(), copy)
    assert not began(events)
    assert closed(events) == {t.id: t.id != trial for t in plan().trials}
    (note,) = notes(events)
    assert note.startswith(f"{path} ") and "computed again" in note
    assert hashes(store) == hashes(whole)
    check_sound(store)


def test_damage_everywhere_at_once(copy: Path, whole: Store) -> None:
    for path in copy.glob("nodes/*/weights.safetensors"):
        flip(path)
    store, events = finish(plan(), copy)
    assert sorted(trained(events)) == sorted(plan().nodes) and len(notes(events)) == PHASES
    assert hashes(store) == hashes(whole)


def test_a_node_that_another_process_mended_meanwhile_stays(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = next(iter(plan().nodes))
    path = copy / "nodes" / key / "weights.safetensors"
    intact = path.read_bytes()
    flip(path)
    original = Store.try_lock

    def mended(self: Store, name: str) -> Any:
        if name == key and path.exists():
            path.write_bytes(intact)
        return original(self, name)

    monkeypatch.setattr(Store, "try_lock", mended)
    _, events = finish(plan(), copy)
    assert not began(events) and reused(events) == set(plan().nodes)
