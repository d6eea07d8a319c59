"""Executed against as written: the same logits in less time, and a difference is noticed."""

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


@pytest.mark.long
def test_executed_and_as_written_give_equal_logits() -> None:
    seconds, trials = study.compare(TINY)
    assert trials == 2
    assert all(seconds[mode].keys() == {42} and seconds[mode][42] > 0 for mode in study.MODES)
    assert study.share(subjects.plan(TINY)) < 1


def test_a_difference_is_an_error(tmp_path: Path) -> None:
    other = replace(TINY, learning_rate=0.0501)
    plans = {"derived": subjects.plan(TINY, "derived"), "plain": subjects.plan(other, "plain")}
    for setting, mode in ((TINY, "derived"), (other, "plain")):
        list(study.training(setting, mode, str(tmp_path / mode)))
    with pytest.raises(RuntimeError, match=r"baseline, seed 42: logits .* differ"):
        study.agreed(plans, tmp_path)


def test_a_single_bit_is_a_difference() -> None:
    logits = {"test": np.ones((3, 4, 10), dtype=np.float32)}
    other = {"test": logits["test"].copy()}
    assert study.equal(logits, other)
    other["test"][1, 2, 3] = np.nextafter(np.float32(1), np.float32(2))
    assert not study.equal(logits, other)
    assert not study.equal({"test": 0.0 * logits["test"]}, {"test": -0.0 * logits["test"]})
