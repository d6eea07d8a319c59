"""What start.py and scale.py say of what they find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.contest import Contender
from benchmarks.scale import Answer
from benchmarks.subjects import trained

from benchmarks import scale, start
from support import CPU, tiny_plan, tiny_study


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
    """Twice the time at ten times the images."""
    more = 200 * 2**20 + 9_000 * 3 * 16 * 16 * 4
    answers = iter((Answer(1.0, 10**9, 200 * 2**20), Answer(20.0, 10**10, more)))
    monkeypatch.setattr(scale, "Contender", lambda *_, **__: Told(next(answers)))
    took, held = scale.growth([replace(scale.USUAL, images=n) for n in (1_000, 10_000)], 2, print)
    assert took.ratio == pytest.approx(2) and took.holds is False
    assert took.name == "scale: time for the same work, 10000 images against 1000"
    assert held.ratio == pytest.approx(4)


class Told:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __call__(self) -> Answer:
        return self.answer

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_a_size_is_trained() -> None:
    answer = scale.make(replace(scale.USUAL, images=300, shape=(3, 8, 8), test_images=50))()
    assert answer.seconds > 0 and answer.peak > 2**20 and answer.work > 0


def peak() -> Callable[[], int]:
    return lambda: scale.peak(CPU)


def test_a_peak_is_of_the_process_alone() -> None:
    """Not of the larger one that started it."""
    held = np.ones(600 * 2**20, dtype=np.uint8)
    with Contender(peak) as contender:
        assert 2**20 < contender() < len(held)


def test_a_phase_that_fails_is_no_measurement() -> None:
    wild = tiny_plan(tiny_study(["joint"], recipe={"learning_rate": 1e30}))
    with pytest.raises(RuntimeError, match="not finite"):
        trained(wild)
