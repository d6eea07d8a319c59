"""What samples of time come to, and how runs are put in turns."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.infer.footprint import Footprint
from offramp.infer.timing import (
    LEAST,
    WARM_UP,
    Effort,
    Times,
    interleaved,
    mixed,
    mixture,
    places,
    timing,
)


def test_runs_take_turns_and_each_begins_a_round() -> None:
    called: list[str] = []
    runs = {name: (lambda name=name: called.append(name)) for name in "abc"}
    found = interleaved(runs, lambda: None, Effort(6, 20.0))
    assert all(len(times.samples) == 6 for times in found.values())
    rounds = [called[i : i + 3] for i in range(3 * WARM_UP, len(called), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert Counter(one[0] for one in rounds) == {"a": 2, "b": 2, "c": 2}


def test_rounds_are_cut_when_they_take_too_long_but_never_to_fewer_than_five() -> None:
    found = interleaved({"a": lambda: None}, lambda: None, Effort(100, 0.0))
    assert len(found["a"].samples) == LEAST


def test_quantiles_and_weights() -> None:
    plain = Times((3.0, 1.0, 2.0))
    assert plain.p50 == 2.0
    skewed = Times((1.0, 2.0, 3.0), (0.9, 0.05, 0.05))
    assert skewed.p50 == 1.0 and skewed.quantile(0.92) == 2.0 and skewed.p95 in (2.0, 3.0)


def test_a_mixture_counts_each_part_by_its_share() -> None:
    fast, slow = Times((1.0,) * 10), Times((9.0,) * 50)
    both = mixed([fast, slow, Times(())], [0.9, 0.1, 0.0])
    assert both.p50 == 1.0 and both.p95 == 9.0
    parts = [(fast, Footprint(2.0, 30)), (slow, Footprint(10.0, 50)), (Times(()), Footprint())]
    made = mixture("eager", parts, [0.9, 0.1, 0.0], 5.0)
    assert made.rate == pytest.approx(1 / 1.8) and made.repeats == 10
    assert made.joules == pytest.approx(2.8) and made.memory == 50
    parts[1] = (slow, Footprint())
    assert mixture("eager", parts, [0.9, 0.1, 0.0], 5.0).joules is None, "of a part nothing is known"
    assert timing("eager", "plain", 4, fast, None).rate == 4.0


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=5).filter(lambda s: sum(s) > 0.01),
    st.integers(1, 300),
)
def test_places_are_as_near_to_the_shares_as_whole_images_allow(shares: list[float], count: int) -> None:
    counts = np.bincount(places(shares, count), minlength=len(shares))
    assert counts.sum() == count
    assert np.abs(counts - count * np.array(shares) / sum(shares)).max() <= 1


def test_places_are_in_another_order_for_another_seed() -> None:
    one, other = places([0.5, 0.5], 40, 0), places([0.5, 0.5], 40, 1)
    assert sorted(one) == sorted(other) and not np.array_equal(one, other)
