"""What commands.py and memory.py say of what they find."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.memory import GROWING, Ran
from benchmarks.subjects import NOISE, Setting, trained

from benchmarks import commands, memory, slowdown, subjects
from support import tiny_plan, tiny_study


def test_modules_of_torch_are_counted(tmp_path: Path) -> None:
    for module in ("torch", "torchish"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").touch()
        (tmp_path / module / "inner.py").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import "
    assert commands.torch_modules(("-c", code + "torchish.inner")) == 0
    assert commands.torch_modules(("-c", code + "torch.inner")) == 2


def test_a_process_that_fails_is_no_measurement() -> None:
    with pytest.raises(Exception, match="exit status 3"):
        commands.seconds(("-c", "raise SystemExit(3)"))


def test_growth_is_told_for_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the time for the same work, and 9,000 images' bytes four times over."""
    work = {n: subjects.plan(replace(GROWING, images=n)).executed for n in (1_000, 10_000)}

    @contextmanager
    def contenders(*_: Any, setting: Any) -> Iterator[Any]:
        more = setting.images > 1_000
        seconds = work[setting.images] * (2.0 if more else 1.0)
        yield lambda: Ran(seconds, 2**20 + more * 9_000 * 3 * 16 * 16 * 4, 0, 0)

    monkeypatch.setattr(memory, "contender", contenders)
    took, memory_growth = memory.growth(1_000, 10_000, 2)
    assert took.ratio == pytest.approx(2) and took.holds is False
    assert took.name == "scale: time for the same work, 10000 images against 1000"
    assert memory_growth.ratio == pytest.approx(4)


@pytest.mark.long
def test_a_run_is_timed_and_its_memory_is_its_own() -> None:
    ran = memory.once(replace(GROWING, images=300, shape=(3, 8, 8), test_images=50))
    assert ran.seconds > 0 and 2**20 < ran.own <= ran.resident < ran.free


def test_a_phase_that_fails_is_no_measurement() -> None:
    wild = tiny_plan(tiny_study(["joint"], recipe={"learning_rate": 1e30}))
    with pytest.raises(RuntimeError, match="not finite"):
        trained(wild)


def test_the_worst_group_is_told() -> None:
    seconds = {"slow": [9.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0], "steady": [9.0, *[1.0] * 6]}
    result = slowdown.late("net", Setting("net", 10, 7), seconds)
    assert (result.ratio, result.spread, result.holds) == (2.0, (1.0, 2.0), False)
    result = slowdown.beside("net", {"a": [1.0], "b": [2.0]}, {"a": [2.0], "b": [3.0]})
    assert (result.ratio, result.spread, result.holds) == (2.0, (1.5, 2.0), True)
    assert "an epoch of them all 1.67" in result.note


@pytest.mark.long
def test_epochs_alternate_between_alone_and_beside() -> None:
    setting = Setting("digits-cnn", 100, 5, strategies=("joint",), data=NOISE, shape=(1, 8, 8))
    alone, busy = slowdown.contended(setting, settle=0.0)
    assert len(alone) == 1 and alone.keys() == busy.keys()
    assert {len(each) for each in (*alone.values(), *busy.values())} == {2}
