"""A study that is finished."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit import closed, finish, hashes

from offramp.errors import Unwritable
from offramp.store.disk import Disk
from support import tiny_plan, tiny_study


def test_a_store_that_holds_all_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it may be on read-only media."""
    plan = tiny_plan(tiny_study(["two-stage"], recipe={"epochs": 1}))
    store, _ = finish(plan, tmp_path)
    before = hashes(store)

    def refuse(*_: object) -> None:
        raise Unwritable("read-only")

    for name in ("write", "write_folder", "remove", "lock", "try_lock", "gate"):
        monkeypatch.setattr(Disk, name, refuse)
    store, events = finish(plan, tmp_path)
    assert closed(events) == {trial.id: True for trial in plan.trials}
    assert hashes(store) == before
