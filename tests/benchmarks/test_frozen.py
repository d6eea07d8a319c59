"""The hand-written loops train what the engine trains, and times are scaled as they should be."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.frozen import CASES, EPOCHS, time_results
from benchmarks.frozen_by_hand import Timed
from benchmarks.frozen_contenders import Task, by_hand, earlyon, engine, write_trunk

from longer import long

SCHEDULE = (("batch_size", 16), ("learning_rate", 0.01))


@pytest.fixture
def task(tmp_path: Path) -> Task:
    trunk = str(tmp_path / "trunk.safetensors")
    usual = Task(trunk, 50, 24, backbone="digits-cnn", recipe=SCHEDULE, threads=1)
    write_trunk(usual)
    return usual


@pytest.mark.parametrize("strategy", ["two-stage", *long("distillation", "branch-wise")])
def test_the_careful_loop_trains_what_the_engine_trains(task: Task, strategy: str) -> None:
    task = replace(task, strategy=strategy)
    derived, careful = engine()(task, 2), by_hand()(task, 2)
    assert len(careful.accuracies) == len(careful.losses) == 2
    for ours, theirs in zip(derived.losses, careful.losses, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3)
    for ours, theirs in zip(derived.accuracies, careful.accuracies, strict=True):
        assert theirs == pytest.approx(ours, abs=1.01 / 24)  # one image may lie on the border
    faster = replace(task, recipe=(("batch_size", 16), ("learning_rate", 0.011)))
    assert by_hand()(faster, 2).losses[-1] != pytest.approx(derived.losses[-1], rel=1e-3)


@pytest.mark.skipif(importlib.util.find_spec("earlyon") is None, reason="earlyon is not installed")
def test_earlyon_trains_the_same_heads(task: Task) -> None:
    # One batch an epoch and no dropout: neither the order of images nor masks differ.
    recipe = (("batch_size", 64), ("optimizer", "adam"), ("learning_rate", 0.003))
    alike = replace(task, recipe=recipe, head=(("dropout", 0.0),))
    theirs, ours = earlyon()(alike, 12), by_hand()(alike, 12)
    assert theirs.epoch > 0
    assert theirs.accuracies[-1] == pytest.approx(ours.accuracies[-1], abs=1.01 / 24)
    assert max(ours.accuracies[-1]) > max(ours.accuracies[0])  # they do learn
    with pytest.raises(ValueError, match="Adam"):
        earlyon()(task, 1)


def test_a_few_epochs_are_scaled_and_what_is_done_once_is_not() -> None:
    case = CASES[0]
    runs = {
        "derived": [Timed(EPOCHS, 10.0, 0.5, ((0.5,),) * EPOCHS, last=5.0)] * 3,
        "careful": [Timed(1, 0.0, seconds, ((0.5,),)) for seconds in (4.0, 5.0, 6.0)],
    }
    (result,) = time_results(case, runs, "images")
    assert (result.ratio, result.spread) == (5.0, (4.0, 6.0))  # 20 × 5 s against 10 s + 20 × 0.5 s
    assert result.bar == 4.0
    assert result.holds
    assert "were preparation free, 10" in result.note
    assert "last looks at the training split take 5 s: 4;" in result.note + ";"
    assert "live epochs, all alike, over 1 and scaled" in result.note
