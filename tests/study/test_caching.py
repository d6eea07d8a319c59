"""Caches of whole runs: never above their limits, forecast as they turn out, and never a failure."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from kit import failed, notes

from longer import long
from offramp.engine.cache import Cache
from offramp.store.store import Store
from offramp.study.plan import caching
from offramp.study.plan.caching import CacheLimits
from offramp.study.plan.plan import Plan
from offramp.study.run.events import Event
from support import CPU, run_all, tiny_plan, tiny_study

STRATEGIES = ("two-stage", "distillation", "branch-wise")


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The most bytes that any cache held, by where."""
    most, reserve = {"memory": 0, "disk": 0}, Cache.reserve

    def watched(self: Cache, *args: Any, **more: Any) -> Any:
        reserved = reserve(self, *args, **more)
        most.update(memory=max(most["memory"], self.used("memory")))
        most.update(disk=max(most["disk"], self.used("disk")))
        return reserved

    monkeypatch.setattr(Cache, "reserve", watched)
    return most


def plan_of(
    strategies: Sequence[str] = STRATEGIES, seeds: Sequence[int] = (42,), **execution: Any
) -> Plan:
    return tiny_plan(tiny_study(strategies, seeds=seeds, execution=execution))


def ran(plan: Plan, folder: Path, **conduct: Any) -> tuple[Store, list[Event]]:
    store, events = run_all(plan, folder, **conduct)
    assert not failed(events)
    return store, events


def cached(plan: Plan, store: Store) -> list[dict[str, int]]:
    return [store.node_cost(key).kept for key in plan.nodes]


@pytest.mark.parametrize(
    ("memory", "disk"),
    [(30_000, 20_000), *long((10**9, 10**9), (0, 0), (7_000, 0), (0, 60_000), (10**9, 0))],
)
def test_no_limit_is_ever_passed_and_the_forecast_is_what_comes(
    memory: int, disk: int, tmp_path: Path, most: dict[str, int]
) -> None:
    plan = plan_of(cache_memory=memory, cache_disk=disk)
    store, _ = ran(plan, tmp_path)
    assert most["memory"] <= memory and most["disk"] <= disk
    peak = caching.forecast(plan, CacheLimits(memory, disk))
    assert most == {"memory": peak.memory, "disk": peak.disk}
    assert max(k["live"] for k in cached(plan, store)) == peak.live
    assert (peak.live == 0) == (memory >= 10**9)


def test_another_seed_holds_no_more(tmp_path: Path, most: dict[str, int]) -> None:
    plan = plan_of(["two-stage"], seeds=(1, 2))
    ran(plan, tmp_path)
    assert most["memory"] == caching.forecast(plan, CacheLimits(10**9, 0)).memory > 0


def test_the_record_says_where_values_were(tmp_path: Path) -> None:
    plan = plan_of(["two-stage"], cache_memory=0)
    store, _ = ran(plan, tmp_path)
    by_name = {node.name: store.node_cost(key).kept for key, node in plan.nodes.items()}
    assert by_name["backbone"] == {"memory": 0, "disk": 0, "live": 0}
    heads = by_name["exit 1"]
    assert heads["disk"] > 0 == heads["memory"] == heads["live"]
    assert heads == by_name["exit 3"], "of the group"


def test_plain_runs_and_runs_without_caches_hold_nothing(tmp_path: Path, most: dict[str, int]) -> None:
    for execution in ({"mode": "plain"}, {"cache": False}):
        plan = plan_of(["two-stage"], **execution)
        store, events = ran(plan, tmp_path / str(len(execution)) / next(iter(execution)))
        assert not any(most.values()) and not any(any(k.values()) for k in cached(plan, store))
        assert caching.forecast(plan, CacheLimits(10**9, 10**9)) == caching.Peak()
        assert not [text for text in notes(events) if "cache" in text]


@pytest.mark.long
def test_limits_that_leave_values_live_are_said(tmp_path: Path) -> None:
    _, events = ran(plan_of(cache_memory=0, cache_disk=0), tmp_path / "none")
    texts = {text for text in notes(events) if "caches" in text}
    assert len(texts) == 1  # the same words each time, so that they are shown once
    assert "(cache_memory, cache_disk" in texts.pop()
    _, events = ran(plan_of(), tmp_path / "enough")
    assert not notes(events)


def test_a_full_disk_is_said_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full from the third value on, in mid-build."""
    take, calls = os.posix_fallocate, 0

    def full(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        take(*args)

    monkeypatch.setattr(os, "posix_fallocate", full)
    some = ("two-stage", "distillation")
    plan = plan_of(some, cache_memory=0, cache_disk="1GB")
    store, events = ran(plan, tmp_path / "full")
    (text,) = {text for text in notes(events) if "no room for" in text}
    assert "no space left" in text
    assert any(k["disk"] and k["live"] for k in cached(plan, store))  # some were there, some not
    monkeypatch.undo()
    plain = plan_of(some, mode="plain")
    other, _ = ran(plain, tmp_path / "plain")
    for trial, unshared in zip(plan.trials, plain.trials, strict=True):
        mine, theirs = store.trial_logits(trial.id), other.trial_logits(unshared.id)
        assert all((mine[name] == theirs[name]).all() for name in mine)


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    plan = plan_of(["two-stage"], cache_memory=0, cache_disk="1GB")
    (tmp_path / "caches").write_text("no folder")
    _, events = ran(plan, tmp_path)
    assert any("no room for" in text for text in notes(events))


def test_caches_grow_no_further_than_others_leave_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's memory is taken by others after the start; a limit that was given stays."""
    cache = Cache(10**9, 0, tmp_path)
    monkeypatch.setattr(caching, "free_memory", lambda: 1000)
    caching.adapt(cache, plan_of(cache_memory="2GB"), CacheLimits(10**9, 0), CPU, 1)
    assert cache.room("memory", []) == 10**9
    caching.adapt(cache, plan_of(), CacheLimits(10**9, 0), CPU, 2)
    assert cache.room("memory", []) == 300
    caching.adapt(cache, plan_of(), CacheLimits(10, 0), CPU, 1)
    assert cache.room("memory", []) == 10


def test_what_a_process_may_take_is_divided(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan, need = plan_of(), caching.need(plan_of()).trial
    assert caching.limits(plan, CPU, tmp_path, 1, memory=need + 5000).memory == 5000
    assert caching.limits(plan, CPU, tmp_path, 1, memory=need - 1).memory == 0
    monkeypatch.setattr(caching, "free_at_start", lambda: 100 * need)
    assert caching.limits(plan, CPU, tmp_path, 4).memory == pytest.approx(14 * need, rel=1e-6)
    assert caching.limits(plan_of(cache=False), CPU, tmp_path) == CacheLimits(0, 0)
