"""What samples of time come to, and how runs are put in turns."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.infer.timing import (
    LEAST,
    WARM_UP,
    Effort,
    TimedCall,
    Times,
    interleaved,
    measure,
    mixed,
    places,
)
from offramp.meters.meter import NO_GPU, Meter, Missing


def test_runs_take_turns_and_each_begins_a_round() -> None:
    called: list[str] = []
    runs = {name: (lambda name=name: called.append(name)) for name in "abc"}
    samples = interleaved(runs, lambda: None, Effort(6, 20.0))
    assert all(len(samples.samples) == 6 for samples in samples.values())
    rounds = [called[i : i + 3] for i in range(3 * WARM_UP, len(called), 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert Counter(names[0] for names in rounds) == {"a": 2, "b": 2, "c": 2}


def test_rounds_are_cut_when_they_take_too_long_but_never_to_fewer_than_five() -> None:
    times = interleaved({"a": lambda: None}, lambda: None, Effort(100, 0.0))
    assert len(times["a"].samples) == LEAST


def test_quantiles_and_weights() -> None:
    plain = Times((3.0, 1.0, 2.0))
    assert plain.p50 == 2.0
    skewed = Times((1.0, 2.0, 3.0), (0.9, 0.05, 0.05))
    assert skewed.p50 == 1.0 and skewed.quantile(0.92) == 2.0 and skewed.p95 in (2.0, 3.0)


def test_a_mixture_counts_each_part_by_its_share() -> None:
    fast, slow = Times((1.0,) * 10), Times((9.0,) * 50)
    both = mixed([fast, slow, Times(())], [0.9, 0.1, 0.0])
    assert both.p50 == 1.0 and both.p95 == 9.0


def test_there_is_a_line_for_each_thing_and_one_for_what_may_happen() -> None:
    """By a clock that calls move on by the seconds that they are written with."""
    now = 0.0

    def take(seconds: float) -> None:
        nonlocal now
        now += seconds

    written = (
        ("plain", 4.0, 8.0, 1.0),
        ("policy", 1.0, 2.0, 0.9),
        ("policy", 9.0, 10.0, 0.1),
        ("stage 1", 0.5, None, 1.0),
    )
    calls = [TimedCall(what, partial(take, s), macs, share) for what, s, macs, share in written]
    meter, effort = Meter(Missing("none"), Missing(NO_GPU)), Effort(10, 1e9)
    lines, first_calls = measure("virtual", calls, 1, effort, meter, most=lambda: 50, clock=lambda: now)
    plain, policy, stage = lines
    assert first_calls == 14.5 and {line.engine for line in lines} == {"virtual"}
    assert [line.what for line in lines] == ["plain", "policy", "stage 1"]
    assert (plain.p50, plain.rate, plain.macs, plain.memory) == (4.0, 0.25, 8.0, 50)
    assert policy.rate == pytest.approx(1 / 1.8) and policy.macs == pytest.approx(2.8)
    assert (policy.p50, policy.p95, policy.repeats) == (1.0, 9.0, 10)
    assert stage.macs is None and stage.memory is None and plain.joules is None


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=5).filter(lambda s: sum(s) > 0.01),
    st.integers(1, 300),
)
def test_places_are_as_near_to_the_shares_as_whole_images_allow(shares: list[float], count: int) -> None:
    counts = np.bincount(places(shares, count), minlength=len(shares))
    assert counts.sum() == count
    assert np.abs(counts - count * np.array(shares) / sum(shares)).max() <= 1


def test_places_are_in_another_order_for_another_seed() -> None:
    first, other = places([0.5, 0.5], 40, 0), places([0.5, 0.5], 40, 1)
    assert sorted(first) == sorted(other) and not np.array_equal(first, other)
