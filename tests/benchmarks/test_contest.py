"""Contenders live in processes of their own and say what went wrong; results say whether they hold."""

from __future__ import annotations

import os
from typing import Literal

import contenders
import pytest
from benchmarks.contest import Contender, Result, in_turns, ratio


@pytest.mark.parametrize(
    ("value", "bar", "better", "holds"),
    [
        (1.05, 1.05, "lower", True),
        (1.06, 1.05, "lower", False),
        (1.5, 1.5, "higher", True),
        (1.4, 1.5, "higher", False),
        (9.0, None, "higher", None),
    ],
)
def test_a_result_holds_where_it_is_on_the_right_side_of_its_bar(
    value: float, bar: float | None, better: Literal["higher", "lower"], holds: bool | None
) -> None:
    assert Result("x", value, bar, better, machine="here").holds is holds


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 1.0]) == (3.0, (2.0, 4.0))
    with pytest.raises(ValueError):
        ratio([1.0], [1.0, 2.0])


def test_every_round_is_begun_by_another_one() -> None:
    seen: list[str] = []
    found = in_turns({name: lambda name=name: seen.append(name) or name for name in "abc"}, 2)
    assert seen == ["a", "b", "c", "b", "c", "a"]
    assert found == {"a": ["a", "a"], "b": ["b", "b"], "c": ["c", "c"]}


def test_a_contender_keeps_its_state_in_a_process_of_its_own() -> None:
    with Contender(contenders.counter, start=10) as contender:
        first, second = contender(), contender()
    assert (first["asked"], second["asked"]) == (11, 12)
    assert first["process"] == second["process"] != os.getpid()


def test_a_contender_is_asked_with_arguments_and_has_an_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BENCHMARK_TEST", "mine")
    with Contender(contenders.environment, {"BENCHMARK_TEST": None}) as contender:
        assert contender() is None
    assert os.environ["BENCHMARK_TEST"] == "mine"
    with Contender(contenders.doubler) as contender:
        assert contender(2.5) == 5.0


def test_what_fails_in_a_contender_is_told() -> None:
    with pytest.raises(RuntimeError, match="ValueError: nothing to build"):
        Contender(contenders.unbuildable)
    with (
        Contender(contenders.failing) as contender,
        pytest.raises(RuntimeError, match="ValueError: no time today"),
    ):
        contender()
    with (
        Contender(contenders.dying) as contender,
        pytest.raises(RuntimeError, match=r"died \(exit code 3\)"),
    ):
        contender()
