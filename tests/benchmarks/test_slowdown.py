"""slowdown.py tells what it finds; its parts run at a tiny size."""

from __future__ import annotations

import pytest
from benchmarks.subjects import NOISE, Setting

from benchmarks import slowdown


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
