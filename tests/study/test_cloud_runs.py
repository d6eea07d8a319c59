"""Whole studies on a store in an object store."""

from __future__ import annotations

from pathlib import Path

from kit import check_equal

from offramp.store.store import Store
from offramp.study.run.events import Reused
from offramp.study.run.run import RunConfig, run
from support import CPU, run_all, tiny_plan, tiny_study


def test_the_bits_are_those_of_a_folder(s3: str, tmp_path: Path) -> None:
    plan = tiny_plan(tiny_study(["baseline", "two-stage"], recipe={"epochs": 1}))
    folder, _ = run_all(plan, tmp_path / "folder")
    conduct, store = RunConfig(CPU, tmp_path / "caches"), Store(s3)
    list(run(plan, store, conduct))
    check_equal(folder, store)
    again = list(run(plan, Store(s3), conduct))
    assert {event.key for event in again if isinstance(event, Reused)} == set(plan.nodes)
