"""A study that is finished."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kit import closed, finish, hashes, trained

from offramp.errors import Unwritable
from offramp.hashing import text, with_seal
from offramp.store.disk import Disk
from offramp.store.locks import Locks
from offramp.store.store import Store
from offramp.study.plan.plan import Plan
from offramp.study.run.events import Note
from support import tiny_plan, tiny_study


def one_trial(root: Path) -> tuple[Plan, Store, str]:
    plan = tiny_plan(tiny_study(["baseline"], recipe={"epochs": 1}))
    store, _ = finish(plan, root)
    (trial,) = store.trials()
    return plan, store, trial


def test_a_store_that_holds_all_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it may be on read-only media."""
    plan = tiny_plan(tiny_study(["two-stage"], recipe={"epochs": 1}))
    store, _ = finish(plan, tmp_path)
    before = hashes(store)

    def refuse(*_: object) -> None:
        raise Unwritable("read-only")

    for name in ("write", "write_folder", "remove"):
        monkeypatch.setattr(Disk, name, refuse)
    for name in ("take", "try_take", "gate"):
        monkeypatch.setattr(Locks, name, refuse)
    store, events = finish(plan, tmp_path)
    assert closed(events) == {trial.id: True for trial in plan.trials}
    assert hashes(store) == before


def test_classes_are_called_as_the_data_call_them_now(tmp_path: Path) -> None:
    """Names change no training, so they are in no key: the store would go on with the old ones."""
    plan, store, trial = one_trial(tmp_path)
    before, logits = store.read_trial(trial), store.trial_logits(trial)
    names = tuple(f"{name} corrected" for name in plan.data.classes)
    renamed = replace(plan, data=replace(plan.data, classes=names))
    store, events = finish(renamed, tmp_path)
    assert trained(events) == [] and closed(events) == {trial: True}
    after = store.read_trial(trial)
    assert after.classes == names != before.classes
    assert after.as_json() == before.as_json() | {"classes": list(names)}
    rewritten = store.trial_logits(trial)
    assert all(np.array_equal(rewritten[name], logits[name]) for name in logits)
    (note,) = [str(event) for event in events if isinstance(event, Note)]
    assert trial in note and "have other names" in note
    assert not [e for e in finish(renamed, tmp_path)[1] if isinstance(e, Note)]


def test_a_damaged_trial_of_other_names_is_made_anew_under_the_new_ones(tmp_path: Path) -> None:
    plan, _, trial = one_trial(tmp_path)
    path = tmp_path / "trials" / trial / "logits.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    names = tuple(name + "s" for name in plan.data.classes)
    store, _ = finish(replace(plan, data=replace(plan.data, classes=names)), tmp_path)
    assert store.read_trial(trial).classes == names and store.trial_logits(trial)


def test_a_record_that_another_offramp_wrote_ends_no_run(tmp_path: Path) -> None:
    plan, _, trial = one_trial(tmp_path)
    path = tmp_path / "trials" / trial / "trial.json"
    document = json.loads(path.read_text())
    del document["seal"], document["manifest"]["macs"]
    path.write_bytes(text(with_seal(document)))
    _, events = finish(plan, tmp_path)
    assert closed(events) == {trial: True}
