"""Contenders of ablation.py do what they are asked, at a tiny size."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.frozen_contenders import Task, pictures, write_trunk
from benchmarks.step_by_hand import Case
from benchmarks.subjects import Setting

from benchmarks import ablation, frozen_contenders, subjects
from offramp.data.dataset import FileSplit, Split
from offramp.engine import trainee
from offramp.study.plan.plan import Plan

CASE = Case("digits-cnn", 8, batch=8, steps=1)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Plan]]:
    """What is trained, on made images."""
    seen: list[Plan] = []
    train = subjects.trained
    monkeypatch.setattr(subjects, "trained", lambda plan: seen.append(plan) or train(plan))
    monkeypatch.setattr(frozen_contenders, "cifar10", lambda: None)
    pictures.cache_clear()
    yield seen
    pictures.cache_clear()


def test_the_optimizer_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    right = trainee.optimizer

    def optimizer(parameters: Any, recipe: Any, fused: bool) -> Any:
        seen.append(fused)
        return right(parameters, recipe, fused)

    monkeypatch.setattr(trainee, "optimizer", optimizer)
    for name in (ablation.ALL, "fused optimizer"):
        assert ablation.step(ablation.STEPS[name][1])(CASE) > 0
    assert seen == [True, False]


def test_only_one_thing_is_off() -> None:
    usual, nothing = ablation.STEPS[ablation.ALL]
    assert nothing == ()
    for name, (environment, numerics) in ablation.STEPS.items():
        assert (environment != usual) + len(numerics) == (name != ablation.ALL)


def test_images_are_read_as_asked(tmp_path: Path, plans: list[Plan]) -> None:
    assert "made images" in ablation.write_files(tmp_path, 160)
    setting = Setting("digits-cnn", 160, 1, strategies=("joint",), data=f"folder:{tmp_path}")
    ask = ablation.seconds(replace(setting, test_images=100))
    assert all(ask({"loader": loader}) > 0 for loader in ("resident", "streaming"))
    resident, streamed = (plan.data.train for plan in plans)
    assert isinstance(resident, Split) and isinstance(streamed, FileSplit)
    assert len(resident) == len(streamed)


@pytest.mark.long
@pytest.mark.usefixtures("plans")
def test_a_contender_may_have_its_images_read_by_processes() -> None:
    (result,) = ablation.of_images("digits-cnn", 160, 1)
    assert result.ratio > 0 and "160 made images" in result.note


def test_phases_run_as_they_are_asked(tmp_path: Path, plans: list[Plan]) -> None:
    task = Task(str(tmp_path / "trunk.safetensors"), 64, 32, backbone="digits-cnn")
    write_trunk(task)
    run = ablation.frozen(task)
    for execution in ablation.EXECUTIONS.values():
        assert run("two-stage", execution, 2) > 0
    _warmed, *executions = [plan.study.execution for plan in plans]
    assert [(e.cache, e.fuse) for e in executions] == [(True, True), (False, True), (True, False)]
    assert {len(plan.nodes) for plan in plans[1:]} == {3}  # heads alone: the trunk is given
