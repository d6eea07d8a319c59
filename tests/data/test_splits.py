"""Which images are held out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from offramp.data.splits import hold_out, subset
from offramp.errors import OfframpError

ALL = ("validation", "calibration", "test")


def labels_of(*counts: int) -> torch.Tensor:
    """Labels with so many of each class, interleaved."""
    labels = torch.tensor([c for c, n in enumerate(counts) for _ in range(n)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


@given(
    counts=st.lists(st.integers(0, 120), min_size=2, max_size=5),
    names=st.lists(st.sampled_from(ALL), unique=True),
    seed=st.integers(0, 5),
)
def test_hold_out_parts_the_rows(counts: list[int], names: list[str], seed: int) -> None:
    if max(counts) < 4:
        counts[0] = 4
    labels = labels_of(*counts)
    parts = hold_out(labels, names, seed)
    assert set(parts) == {*names, "train"}
    rows = torch.cat(list(parts.values()))
    assert torch.equal(rows.sort().values, torch.arange(len(labels))), "each row once"
    for rows in parts.values():
        assert torch.equal(rows, rows.sort().values)


@pytest.mark.parametrize(
    ("n", "held"),
    [
        (5000, 250),  # 5 %
        (400, 20),
        (100, 20),  # at least 20
        (80, 20),
        (79, 19),  # never more than a quarter
        (4, 1),
        (3, 0),
    ],
)
def test_held_out_share_of_a_class(n: int, held: int) -> None:
    labels = labels_of(n, 1000)
    parts = hold_out(labels, ("validation", "calibration"), 0)
    for name in ("validation", "calibration"):
        assert (labels[parts[name]] == 0).sum() == held
        assert (labels[parts[name]] == 1).sum() == 50
    assert (labels[parts["train"]] == 0).sum() == n - 2 * held


def test_a_split_does_not_depend_on_calls_or_on_its_neighbors() -> None:
    labels = labels_of(100, 200, 300)
    alone = hold_out(labels, ("calibration",), 7)["calibration"]
    torch.manual_seed(99)
    hold_out(labels, ALL, 8)
    assert torch.equal(hold_out(labels, ALL, 7)["calibration"], alone)
    assert torch.equal(hold_out(labels, ("calibration", "validation"), 7)["calibration"], alone)
    assert not torch.equal(hold_out(labels, ("calibration",), 8)["calibration"], alone)


def test_hold_out_refuses_tiny_classes() -> None:
    with pytest.raises(OfframpError, match="hold out a validation split"):
        hold_out(labels_of(3, 3, 3), ("validation",), 0)
    assert len(hold_out(labels_of(3, 3), (), 0)["train"]) == 6


def test_subset_keeps_proportions() -> None:
    labels = labels_of(500, 300, 200)
    rows = subset(labels, 100, 0, "train")
    assert labels[rows].bincount().tolist() == [50, 30, 20]
    assert torch.equal(rows, rows.unique())
    assert labels[subset(labels, 101, 0, "train")].bincount().sum() == 101
    assert torch.equal(subset(labels, 1000, 0, "train"), torch.arange(1000))
    assert torch.equal(subset(labels, 100, 0, "train"), rows)
    assert not torch.equal(subset(labels, 100, 1, "train"), rows)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.data())
def test_subset_has_the_size_asked_for(counts: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, sum(counts)))
    rows = subset(labels_of(*counts), n, 3, "any")
    assert len(rows) == n == len(rows.unique())


@pytest.mark.parametrize("n", [0, -1, 7])
def test_subset_refuses(n: int) -> None:
    with pytest.raises(OfframpError, match="of 6"):
        subset(labels_of(3, 3), n, 0, "any")


def test_hold_out_is_pinned() -> None:
    """A change here would split every user's data anew: it must be meant."""
    labels = torch.arange(24) % 2
    parts = hold_out(labels, ("validation", "calibration"), 42)
    assert parts["validation"].tolist() == [1, 3, 6, 7, 20, 22]
    assert parts["calibration"].tolist() == [5, 10, 11, 12, 14, 23]
