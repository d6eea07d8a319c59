"""The hand-written loops train what the engine trains, and times are scaled as they should be."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.frozen import CASES, EPOCHS, accuracy_results, check_bits, measure, time_results
from benchmarks.frozen_by_hand import Timed
from benchmarks.frozen_contenders import by_hand, earlyon, engine
from benchmarks.frozen_profile import table, watched
from benchmarks.frozen_task import Task, write_pictures, write_trunk

SCHEDULE = (("batch_size", 16), ("learning_rate", 0.01))


@pytest.fixture
def task(tmp_path: Path) -> Task:
    write_pictures(tmp_path, train=50, validation=24)
    made = Task(str(tmp_path), backbone="digits-cnn", recipe=SCHEDULE, threads=1)
    write_trunk(made)
    return made


@pytest.mark.parametrize("strategy", ["two-stage", "distillation", "branch-wise"])
def test_the_careful_loop_trains_what_the_engine_trains(task: Task, strategy: str) -> None:
    task = replace(task, strategy=strategy)
    derived, plain, careful = (
        train(task, 2) for train in (engine("derived"), engine("plain"), by_hand())
    )
    check_bits(derived, plain, strategy)
    assert len(careful.accuracies) == len(careful.losses) == 2
    for ours, theirs in zip(plain.losses, careful.losses, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3)
    for ours, theirs in zip(plain.accuracies, careful.accuracies, strict=True):
        assert theirs == pytest.approx(ours, abs=1.01 / 24)  # one image may lie on the border


def test_another_recipe_trains_something_else(task: Task) -> None:
    faster = replace(task, recipe=(("batch_size", 16), ("learning_rate", 0.011)))
    plain, careful = engine("plain")(task, 2), by_hand()(faster, 2)
    assert careful.losses[-1] != pytest.approx(plain.losses[-1], rel=1e-3)


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
    size = replace(case.full, rounds=3)
    found = {
        "derived": [Timed(EPOCHS, 10.0, 0.5, ((0.5,),) * EPOCHS, last=5.0)] * 3,
        "careful": [Timed(1, 0.0, seconds, ((0.5,),)) for seconds in (4.0, 5.0, 6.0)],
    }
    (result,) = time_results(case, size, found, "images")
    assert (result.ratio, result.spread) == (5.0, (4.0, 6.0))  # 20 × 5 s against 10 s + 20 × 0.5 s
    assert result.bar == 4.0
    assert result.holds
    assert "were preparation free, 10" in result.note
    assert "last looks at the training split take 5 s: 4;" in result.note + ";"
    assert "live epochs, all alike, over 1 and scaled" in result.note


def test_accuracies_must_be_alike_within_noise() -> None:
    size = replace(CASES[-1].full, validation=500)  # two standard errors of 50 % are 4.5 points
    ours = Timed(2, 0.0, 1.0, ((0.1, 0.1, 0.1), (0.5, 0.5, 0.5)))
    near, far = (Timed(2, 0.0, 1.0, ((0.1,) * 3, (share,) * 3)) for share in (0.53, 0.56))
    found = {"derived": [ours], "careful": [near], "earlyon": [far]}
    good, bad = accuracy_results(CASES[-1], size, found, "images")
    assert good.bar == bad.bar == pytest.approx(0.911)
    assert good.holds
    assert not bad.holds


def test_the_second_epoch_of_each_group_is_profiled(task: Task, tmp_path: Path) -> None:
    (fused,) = watched(task, tmp_path / "fused", "derived")
    assert fused[0] == "exit 1 exit 2 exit 3"
    alone = list(watched(task, tmp_path / "alone", "plain"))
    assert [names for names, *_ in alone] == ["exit 1", "exit 2", "exit 3"]
    for _, seconds, operations in (fused, *alone):
        assert seconds > 0
        assert {"dense convolution", "optimizer"} <= {o.kind for o in operations}
    *lines, empty, speed = table("both", alone).splitlines()
    assert empty == "" and speed.startswith("Dense convolutions: ")
    assert len({line.count("|") for line in lines}) == 1
    assert lines[0] == "| both | exit 1 | exit 2 | exit 3 | all |"


def test_other_numbers_than_plains_are_refused() -> None:
    plain = Timed(1, 0.0, 1.0, ((0.5, 0.25),), ((1.0, 2.0),))
    derived = Timed(2, 0.0, 1.0, ((0.5, 0.25), (0.5, 0.5)), ((1.0, 2.0), (0.5, 0.5)))
    check_bits(derived, plain, "case")
    with pytest.raises(AssertionError, match="losses"):
        check_bits(replace(derived, losses=((1.0, 2.0000001), (0.5, 0.5))), plain, "case")


def test_without_earlyon_its_lines_are_left_out_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr("benchmarks.frozen.CASES", ())
    said: list[str] = []
    monkeypatch.setattr("benchmarks.frozen.Contender", _Silent)
    assert list(measure(True, said.append)) == []
    assert "pip install" in said[0]
    assert "earlyon" in said[0]


class _Silent:
    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass
