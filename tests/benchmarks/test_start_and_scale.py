"""What start.py and scale.py say of what they find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.phases import trained
from benchmarks.scale import Answer, Size
from benchmarks.side import Contender

from benchmarks import scale, start
from offramp.data.splits import hold_out
from support import tiny_plan, tiny_study


def test_modules_of_torch_are_counted(tmp_path: Path) -> None:
    for module in ("torch", "torchish"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").touch()
        (tmp_path / module / "inner.py").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import "
    assert start.torch_modules(("-c", code + "torchish.inner")) == 0
    assert start.torch_modules(("-c", code + "torch.inner")) == 2


def test_a_process_that_fails_is_no_measurement() -> None:
    with pytest.raises(Exception, match="exit status 3"):
        start.seconds(("-c", "raise SystemExit(3)"))


def test_growth_is_told_for_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the time at ten times the images; half as much again for the same work at more exits."""
    answers = {
        Size(images=1_000): Answer(1.0, 10**9, 1.5, 200 * 2**20),
        Size(images=10_000): Answer(20.0, 10**10, 25.0, 200 * 2**20 + 9_000 * 3 * 16 * 16 * 4),
        Size(exits=1): Answer(1.0, 10**9, 1.5, 100 * 2**20),
        Size(exits=8): Answer(3.0, 2 * 10**9, 3.5, 150 * 2**20),
    }
    monkeypatch.setattr(scale, "Contender", lambda _, __, size: Told(answers[size]))
    images, exits = [*answers][:2], [*answers][2:]
    took, held = scale.growth("images", images, 2, print)
    assert took.ratio == pytest.approx(2) and took.holds is False
    assert took.name == "scale: time for the same work, 10000 images against 1000"
    assert held.ratio == pytest.approx(4)
    took, held = scale.growth("exits", exits, 1, print)
    assert (took.ratio, took.holds, held.ratio) == (pytest.approx(1.5), None, pytest.approx(1.5))


class Told:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __call__(self) -> Answer:
        return self.answer

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    "size", [Size(300, 2, 4, pixels=8), replace(scale.SIZES["exits"][-1], images=150)], ids=str
)
def test_a_size_is_trained(size: Size) -> None:
    answer = scale.make(size)()
    assert 0 < answer.seconds < answer.whole and answer.peak > 2**20 and answer.work > 0


def peak() -> Callable[[], int]:
    return lambda: scale._peak(torch.device("cpu"))


def test_of_every_size_images_of_each_class_can_be_held_out() -> None:
    for size in (one for sizes in (scale.SIZES, scale.QUICK) for some in sizes.values() for one in some):
        labels = torch.arange(size.images) % size.classes
        split = hold_out(labels, ("validation", "calibration"), seed=0)
        assert all(len(rows) >= size.classes for rows in split.values()), size


def test_a_peak_is_of_the_process_alone() -> None:
    """Not of the larger one that started it."""
    held = np.ones(600 * 2**20, dtype=np.uint8)
    with Contender(peak) as contender:
        assert 2**20 < contender() < len(held)


def test_a_phase_that_fails_is_no_measurement() -> None:
    plan = tiny_plan(tiny_study(["joint"], recipe={"learning_rate": 1e30}))
    with pytest.raises(RuntimeError, match="not finite"):
        trained(plan)
