"""Orders and batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import refused
from syrupy.assertion import SnapshotAssertion

from offramp.data.batches import bounds, order


@given(n=st.integers(1, 500), batch_size=st.integers(1, 200))
def test_batches_tile_the_samples_and_none_is_single(n: int, batch_size: int) -> None:
    batches = bounds(n, batch_size)
    covered = [i for start, stop in batches for i in range(start, stop)]
    assert covered == list(range(n))
    sizes = [stop - start for start, stop in batches]
    assert all(size == batch_size for size in sizes[:-1])
    assert 1 <= sizes[-1] <= batch_size + 1
    if n > 1 and batch_size > 1:
        assert min(sizes) > 1


@pytest.mark.parametrize(
    ("n", "batch_size", "expected"),
    [
        (8, 4, ((0, 4), (4, 8))),
        (9, 4, ((0, 4), (4, 9))),  # the single one joins the batch before
        (10, 4, ((0, 4), (4, 8), (8, 10))),  # two stay a batch of their own
        (5, 4, ((0, 5),)),
        (3, 4, ((0, 3),)),  # fewer than a batch
        (1, 4, ((0, 1),)),  # nothing to join
        (3, 1, ((0, 1), (1, 2), (2, 3))),
    ],
)
def test_bounds(n: int, batch_size: int, expected: tuple[tuple[int, int], ...]) -> None:
    assert bounds(n, batch_size) == expected


@pytest.mark.parametrize(("n", "batch_size"), [(0, 4), (4, 0), (4, -1)])
def test_bounds_refuses_nothing(n: int, batch_size: int, snapshot: SnapshotAssertion) -> None:
    assert refused(bounds, n, batch_size) == snapshot


def test_order_is_a_function_of_seed_and_epoch_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = order(42, 0, 100)
    assert torch.equal(state, torch.get_rng_state()), "the global generator stays untouched"
    torch.rand(7)
    order(42, 5, 100)
    assert torch.equal(order(42, 0, 100), first)
    assert first.dtype == torch.int64
    assert torch.equal(first.sort().values, torch.arange(100))
    assert not torch.equal(order(42, 1, 100), first)
    assert not torch.equal(order(43, 0, 100), first)


def test_order_is_pinned() -> None:
    assert order(42, 3, 8).tolist() == [1, 5, 7, 2, 4, 3, 0, 6]
