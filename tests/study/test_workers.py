"""How many workers suit a plan."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kit import conduct, finish
from syrupy.assertion import SnapshotAssertion

from offramp.store.store import Store
from offramp.study.plan import workers
from offramp.study.plan.plan import Plan
from offramp.study.plan.workers import (
    PROCESS,
    SHARE,
    STACKS,
    Need,
    Workers,
    check_memory,
    fitting,
    suited,
    widest,
)
from offramp.study.run.processes import run_pooled
from offramp.study.run.run import run
from refusal import refuses
from support import CPU, tiny_plan, tiny_study
from wording import refusal

GIB = 2**30


def plan(*strategies: str, seeds: tuple[int, ...] = (42, 43), threads: int = 2, **more: Any) -> Plan:
    planned = tiny_plan(tiny_study(strategies or ("two-stage", "joint"), seeds=seeds, **more))
    return replace(planned, numerics=replace(planned.numerics, threads=threads))


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny plans count as work for many."""
    monkeypatch.setattr(workers, "WORTH", 1e-6)


def suiting(plan: Plan, store: Path, cores: int = 64, memory: int = 640 * GIB) -> Workers:
    return suited(plan, Store(store), CPU, lambda: cores, lambda: memory)


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 1), (3, 1), (4, 2), (7, 3), (64, 4)])
def test_workers_times_threads_are_never_above_the_cores(cores: int, count: int, tmp_path: Path) -> None:
    chosen = suiting(plan(), tmp_path, cores=cores)
    assert chosen.count == count and chosen.cores == max(1, cores // 2)
    assert chosen.reason.startswith(f"{cores} core")


@pytest.mark.usefixtures("long")
def test_threads_are_those_of_the_numerics(tmp_path: Path) -> None:
    assert suiting(plan(threads=1), tmp_path, cores=3).count == 3
    assert suiting(plan(threads=8), tmp_path, cores=16).count == 2


@pytest.mark.usefixtures("long")
def test_the_plan_sets_an_end(tmp_path: Path) -> None:
    """Two seeds of a backbone and of a joint phase; then two of all heads, which share a pass."""
    planned = plan()
    assert widest(planned, set()) == 4 == suiting(planned, tmp_path).plan
    assert widest(plan("two-stage", seeds=(42,)), set()) == 1
    assert widest(plan("two-stage", seeds=(42,), execution={"fuse": False}), set()) == 3
    assert widest(planned, planned.nodes.keys()) == 0
    joints = {key for key, node in planned.nodes.items() if node.name == "joint"}
    assert widest(planned, joints) == 2


@pytest.mark.usefixtures("long")
def test_what_the_store_holds_needs_no_worker(tmp_path: Path) -> None:
    planned = tiny_plan(tiny_study(["two-stage"], seeds=[42, 43]))
    store = Store(tmp_path / "store")
    running = run(planned, store, conduct(store.root))
    assert suiting(planned, store.root).count == 2
    next(event for event in running if type(event).__name__ == "Finished")
    running.close()
    assert suiting(planned, store.root).plan == 2
    finish(planned, store.root)
    chosen = suiting(planned, store.root)
    assert chosen.count == 1 and chosen.reason == "nothing is left to train"


@pytest.mark.usefixtures("long")
def test_memory_sets_an_end(tmp_path: Path) -> None:
    planned = plan()
    trial = workers.need(planned).trial
    assert PROCESS < trial < PROCESS + 64 * 2**20  # a tiny network on tiny data
    for count in (1, 2, 3):
        room = (PROCESS + count * trial + 10 * 2**20) / SHARE
        chosen = suiting(planned, tmp_path, memory=int(room))
        assert chosen.count == chosen.memory == count and "or more" not in chosen.reason
    assert suiting(planned, tmp_path, memory=0).count == 1
    assert "free memory: 4 or more" in suiting(planned, tmp_path).reason


def test_larger_batches_images_and_networks_need_more() -> None:
    small = workers.need(plan()).trial
    assert workers.need(plan(recipe={"batch_size": 4096})).trial > small + 100 * 2**20
    wide = tiny_plan(tiny_study(["joint"], backbone="resnet18"))
    weights = sum(t.nbytes for t in wide.net.parameters())
    assert workers.need(wide).trial > PROCESS + workers.COPIES * weights
    cached = plan("two-stage")
    assert workers.need(cached).cache == max(w.cache_bytes for w in cached.work.values()) > 0
    assert workers.need(plan("two-stage", execution={"cache": False})).cache == 0


def test_memory_is_that_of_the_batches_that_phases_have() -> None:
    small = workers.need(plan("joint"))
    own = [{"name": "joint", "phases": {"*": {"batch_size": 4096}}}]
    large = workers.need(tiny_plan(tiny_study(own)))
    assert large.trial > small.trial + 100 * 2**20 and large.least > small.least + 50 * 2**20
    less = [{"name": "joint", "phases": {"*": {"batch_size": 128}}}]
    fewer = workers.need(tiny_plan(tiny_study(less, recipe={"batch_size": 4096})))
    assert fewer.least < large.least and fewer.trial < large.trial


def test_caches_of_all_workers_are_counted_up_to_their_limit() -> None:
    need = Need(trial=100, cache=1000)
    room = PROCESS + 5000
    assert fitting(need, room, limit=10_000, most=99) == 4
    assert fitting(need, room, limit=2000, most=99) == 30
    assert fitting(need, room, limit=0, most=99) == 50
    assert fitting(need, room, limit=0, most=7) == 7
    assert fitting(need, 0, limit=0, most=7) == 1


def test_processes_are_not_started_for_a_moment_of_work(tmp_path: Path) -> None:
    chosen = suiting(plan(), tmp_path)
    assert chosen.count == chosen.work == 1 and chosen.plan == 4
    long = plan(recipe={"epochs": 100_000})
    assert suiting(long, tmp_path).count == 4


@pytest.mark.usefixtures("long")
def test_where_costs_are_results_phases_train_one_at_a_time(tmp_path: Path) -> None:
    chosen = suiting(plan(execution="plain"), tmp_path)
    assert chosen.count == 1 and "costs are results" in chosen.reason
    assert suiting(plan(), tmp_path).count > 1
    assert suited(plan(), Store(tmp_path), torch.device("cuda")).count == 1


def test_each_of_several_devices_gets_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    planned, cuda = plan(), torch.device("cuda")
    chosen = suited(planned, Store(tmp_path), cuda)
    assert chosen.count == 3 and "one for each of 3 devices" in chosen.reason
    assert suited(planned, Store(tmp_path), torch.device("cuda:1")).count == 1


def test_ranks_leave_no_device_to_other_workers(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    planned = plan(execution={"devices": 2})
    chosen = suiting(planned, tmp_path)
    assert chosen.count == 1 and "2 devices together" in chosen.reason
    assert refusal(workers.chosen, planned, 3) == snapshot


def test_what_is_asked_for_is_done_and_what_speaks_against_it_said() -> None:
    planned = plan()
    assert workers.chosen(planned, 2, lambda: 4) == Workers(2, "as asked for", 2)
    slow = workers.chosen(planned, 2, lambda: 2)
    assert slow.count == 2 and "where 1 would" in slow.reason
    plain = plan(execution="plain")
    assert "one worker only" in workers.chosen(plain, 2, lambda: 64).reason
    assert workers.chosen(plain, 1, lambda: 64).reason == "as asked for"


def test_what_cannot_fit_is_said_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a control group, or by `ulimit -v`; nothing is started, nothing written."""
    planned, store = plan("baseline"), Store(tmp_path / "store")
    least = workers.need(planned).least
    assert 0 < least < workers.need(planned).trial - PROCESS
    check_memory(planned, 1, lambda: least, lambda: least + STACKS)
    refuses("memory is free", check_memory, planned, 1, lambda: least - 1, lambda: least)
    refuses("address space", check_memory, planned, 1, lambda: least, lambda: least + STACKS - 1)
    refuses("fewer workers, a smaller", check_memory, planned, 2, lambda: 2 * least, lambda: least)
    both = 2 * (least + workers.need(planned).images)
    check_memory(planned, 2, lambda: both, lambda: least + STACKS)  # though this process holds far more
    refuses("fewer workers", check_memory, planned, 2, lambda: both - 1, lambda: least + STACKS)
    groups, mine = tmp_path / "groups", tmp_path / "cgroup"
    groups.mkdir()
    mine.write_text("0::/\n")
    (groups / "memory.max").write_text("700000000")
    (groups / "memory.current").write_text(str(700000000 - least + 1))
    monkeypatch.setattr(workers.free_memory, "__defaults__", (groups, mine))
    refuses("at the least", list, run_pooled(planned, store, conduct(tmp_path)))
    assert not store.root.exists()
    (groups / "memory.current").write_text("0")
    finish(planned, store.root)
    (groups / "memory.current").write_text("700000000")
    list(run_pooled(planned, store, conduct(tmp_path)))  # what is there needs no memory to train


def test_heads_alone_need_no_room_for_the_backbone() -> None:
    batch = {"batch_size": 512}
    joint = plan("joint", recipe=batch)
    heads = replace(joint, nodes={k: n for k, n in plan("two-stage").nodes.items() if "exit" in n.name})
    assert workers.need(heads).least < workers.need(joint).least
