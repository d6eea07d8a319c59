"""batches.py and python.py: what their turns come to, and that their ways run at a tiny size."""

from pathlib import Path
from typing import Literal

import pytest
from benchmarks.contest import BARE, contender
from benchmarks.step_by_hand import Case

from benchmarks import __main__ as program
from benchmarks import batches, optimizer, python
from longer import long


def test_the_share_of_a_saving_that_arrives() -> None:
    half = batches.arrived("net", 8, 0.5, [(2.0, 1.2, 1.1, 0.5), (2.0, 1.0, 0.9, 0.5)])
    assert half.ratio == pytest.approx(0.9) and half.spread == pytest.approx((0.8, 1.0)) and half.holds
    lost = batches.arrived("net", 8, 0.5, [(2.0, 1.5, 1.0, 0.5)])
    assert lost.ratio == pytest.approx(0.5) and not lost.holds
    whole = batches.arrived("net", 1, 0.0, [(0.95, 1.0, 0.95, 1.1)])
    assert whole.ratio == pytest.approx(0.95) and not whole.holds


@pytest.mark.long
def test_the_predictor_is_timed_with_as_many_leaving_as_asked() -> None:
    turn = batches.pair(("airbench", 32, ()))
    plain, policy, rest, macs = turn(256, 0.5)
    assert plain > 0 and policy > 0 and rest > 0 and 0.4 < macs < 1.0
    assert turn(256, 0.0)[3] > macs > turn(256, 0.9)[3]


@pytest.mark.long
def test_a_job_runs_in_every_way(tmp_path: Path) -> None:
    study = {**python.STUDY, "strategies": ["baseline"], "recipe": {"epochs": 1}}
    (tmp_path / "study.yaml").write_text(python.json.dumps(study))
    jobs = python.run_ways(study), python.fit_ways({"epochs": 1})
    for words in (words for ways in jobs for words in ways.values()):
        assert python.seconds(words, tmp_path) > 0
    assert python.build_ways().keys() == python.run_ways(study).keys()  # by hand: half a minute each
    with pytest.raises(RuntimeError, match="failed"):
        python.seconds(("-c", "import nothing_of_this_name"), tmp_path)


@pytest.mark.parametrize("name", ["sgd", *long("adamw")])
def test_both_optimizers_train_in_one_process(name: Literal["sgd", "adamw"]) -> None:
    case = Case("airbench", 32, 4, 1, (("width", "small"),), optimizer=name)
    with contender(optimizer.pair, BARE, case=case) as ask:  # it sets threads and kernels for good
        assert all(ask(fused) > 0 for fused in (True, False, False, True))


def test_the_quick_parts_take_less_than_ten_minutes_by_what_is_said_of_them() -> None:
    assert set(program.QUICK_MINUTES) <= set(program.EVERY) and "study" not in program.QUICK_MINUTES
    assert sum(program.QUICK_MINUTES.values()) <= 10
