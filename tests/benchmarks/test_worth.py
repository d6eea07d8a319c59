"""Contenders of worth.py do what they are asked, at a tiny size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.frozen_task import Task, write_pictures, write_trunk
from benchmarks.loops import Case
from benchmarks.runs import Setting

from benchmarks import phases, worth
from offramp.data.dataset import Split
from offramp.data.loading.file_split import FileSplit
from offramp.engine import trainee
from offramp.study.plan.plan import Plan

CASE = Case("digits-cnn", 8, batch=8, steps=1)


def test_the_optimizer_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    made = trainee.optimizer

    def optimizer(parameters: Any, recipe: Any, fused: bool) -> Any:
        seen.append(fused)
        return made(parameters, recipe, fused)

    monkeypatch.setattr(trainee, "optimizer", optimizer)
    for name in (worth.ALL, "fused optimizer"):
        assert worth.step(worth.STEPS[name].numerics)(CASE) > 0
    assert seen == [True, False]


def test_only_one_thing_is_off() -> None:
    usual = worth.STEPS[worth.ALL]
    for name, off in worth.STEPS.items():
        changed = len(off.environment.items() ^ usual.environment.items()) > 0
        assert changed + bool(off.numerics) == (name != worth.ALL)


def test_images_are_read_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worth, "cifar10", lambda: None)
    assert "made images" in worth.write_files(tmp_path, 160)
    plans: list[Plan] = []
    train = phases.trained
    monkeypatch.setattr(phases, "trained", lambda plan: plans.append(plan) or train(plan))
    run = worth.joint(
        Setting("digits-cnn", 160, 1, strategies=("joint",), test_images=100, data=f"folder:{tmp_path}")
    )
    assert run("streaming") > 0
    kept, read = (plan.data.train for plan in plans)
    assert isinstance(kept, Split) and isinstance(read, FileSplit) and len(kept) == len(read)


def test_a_contender_may_have_its_images_read_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worth, "cifar10", lambda: None)
    (result,) = worth.of_images("digits-cnn", 160, 1, lambda _: None)
    assert result.ratio > 0 and "160 made images" in result.note


def test_phases_run_as_they_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path, None, 64, 32)
    write_trunk(Task(str(tmp_path), backbone="digits-cnn"))
    plans: list[Plan] = []
    train = phases.trained
    monkeypatch.setattr(phases, "trained", lambda plan: plans.append(plan) or train(plan))
    run = worth.frozen(str(tmp_path), "digits-cnn", worth.Scale(64, 2, 1, 1))
    for execution in worth.EXECUTIONS.values():
        assert run("two-stage", execution) > 0
    _warmed, *asked = [plan.study.execution for plan in plans]
    assert [(e.cache, e.fuse, e.cache_memory) for e in asked] == [
        (True, True, "auto"),
        (False, True, "auto"),
        (True, True, 0),
        (True, False, "auto"),
    ]
    assert {len(plan.nodes) for plan in plans[1:]} == {3}  # heads alone: the trunk is given
