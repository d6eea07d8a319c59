"""Contenders live in processes of their own and say what went wrong; results say whether they hold."""

import os
from collections.abc import Callable
from typing import Any, Literal

import contenders
import pytest
from benchmarks.contest import Result, against, contender, in_turns


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
    comparison = against("x", [2.0, 30.0, 4.0], [1.0, 10.0, 1.0], machine="here")
    assert (comparison.ratio, comparison.spread) == (3.0, (2.0, 4.0))
    with pytest.raises(ValueError):
        against("x", [1.0], [1.0, 2.0])


def test_every_round_is_begun_by_another_one() -> None:
    seen: list[str] = []
    rounds = in_turns({name: lambda name=name: seen.append(name) or name for name in "abc"}, 2)
    assert seen == ["a", "b", "c", "b", "c", "a"]
    assert rounds == {"a": ["a", "a"], "b": ["b", "b"], "c": ["c", "c"]}


def test_a_contender_keeps_its_state_in_a_process_of_its_own() -> None:
    with contender(contenders.counter, start=10) as ask:
        first, second = ask(), ask()
    assert (first["asked"], second["asked"]) == (11, 12)
    assert first["process"] == second["process"] != os.getpid()
    with contender(contenders.two) as ask:
        assert [ask(), ask(), ask()] == [1, 2, None]


def test_a_contender_is_asked_with_arguments_and_has_an_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BENCHMARK_TEST", "mine")
    with contender(contenders.environment, {"BENCHMARK_TEST": None}) as ask:
        assert ask() is None
    assert os.environ["BENCHMARK_TEST"] == "mine"
    with contender(contenders.doubler) as ask:
        assert ask(2.5) == 5.0


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (contenders.unbuildable, "ValueError: nothing to build"),
        (contenders.failing, "ValueError: no time today"),
        (contenders.dying, r"died \(exit code 3\)"),
    ],
)
def test_what_fails_in_a_contender_is_told(make: Callable[..., Any], reason: str) -> None:
    with pytest.raises(RuntimeError, match=reason), contender(make) as ask:
        ask()
