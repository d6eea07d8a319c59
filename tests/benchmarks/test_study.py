"""Executed against as written: the same logits in less time, and a difference is noticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import study, subjects

TINY = subjects.Setting(
    "digits-cnn",
    images=200,
    epochs=1,
    strategies=("baseline", "two-stage"),
    test_images=50,
    data="digits",
)


def test_executed_and_as_written_give_equal_logits() -> None:
    lines: list[str] = []
    found = study.compare(TINY, lines.append)
    assert found.trials == 2
    assert found.counted < 1
    assert set(found.seconds["derived"]) == {42}
    assert all(sum(found.seconds[mode].values()) > 0 for mode in study.MODES)
    assert found.wall["plain"] > sum(found.seconds["plain"].values())
    shares = [f"  digits-cnn: {percent} % of the work" for percent in (25, 50, 75, 100)]
    assert [line.partition(";")[0] for line in lines] == shares


def test_a_difference_is_an_error(tmp_path: Path) -> None:
    other = replace(TINY, learning_rate=0.0501)
    plans = {"derived": subjects.plan(TINY, "derived"), "plain": subjects.plan(other, "plain")}
    for setting, mode in ((TINY, "derived"), (other, "plain")):
        advance = subjects.study(setting, mode, str(tmp_path / mode), "phase")
        while advance() is not None:
            pass
    with pytest.raises(RuntimeError, match=r"baseline, seed 42: .* rows of .* differ"):
        study.agreed(plans, tmp_path)


def test_a_single_bit_is_a_difference() -> None:
    one = {"test": np.ones((3, 4, 10), dtype=np.float32)}
    other = {"test": one["test"].copy()}
    assert study.differing(one, other) is None
    other["test"][1, 2, 3] = np.nextafter(np.float32(1), np.float32(2))
    assert study.differing(one, other) == "1 of 12 rows of test differ"
    assert study.differing({"test": -0 * one["test"]}, {"test": -0.0 * one["test"]}) is not None
