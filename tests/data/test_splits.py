"""Which images are held out."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import refused
from syrupy.assertion import SnapshotAssertion

from offramp.data.raw import RawData, RawSplit
from offramp.data.splits import by_hash, choose, hold_out, stratified, together, with_test_split
from offramp.data_spec import DataSpec
from offramp.errors import OfframpError

ALL = ("validation", "calibration", "test")


def labels_of(*counts: int) -> torch.Tensor:
    """Labels with so many of each class, interleaved."""
    labels = torch.tensor([c for c, n in enumerate(counts) for _ in range(n)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


@settings(max_examples=50)
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
    ("counts", "sizes"),
    [
        ((5000, 1000), [250, 50]),  # 5 %
        ((400, 400), [20, 20]),
        ((450, 150), [30, 10]),  # 20 for each class, and the classes in proportion
        ((112, 338), [10, 30]),
        ((1200, *[80] * 9), [125, 9, 9, 9, *[8] * 6]),  # once 20 of each, a quarter of each small one
        ((131, 137, 135), [20, 20, 20]),  # a difference of less than an image is none
        ((110, 150, 140), [17, 22, 21]),
        ([100] * 20, [10] * 20),  # 200 at the most of what is not 5 %
        ((80, 80), [20, 20]),
        ((79, 79), [19, 19]),  # never more than a quarter
        ((4, 4), [1, 1]),
        ((2000, 4, 3), [100, 1, 0]),  # one of each class that has four
    ],
)
def test_hold_outs_keep_the_proportions_of_the_classes(counts: Sequence[int], sizes: list[int]) -> None:
    labels = labels_of(*counts)
    parts = hold_out(labels, ("validation", "calibration"), 0)
    by_class = {
        name: torch.bincount(labels[rows], minlength=len(counts)) for name, rows in parts.items()
    }
    assert by_class["validation"].tolist() == by_class["calibration"].tolist() == sizes
    assert by_class["train"].tolist() == [n - 2 * k for n, k in zip(counts, sizes, strict=True)]


@settings(max_examples=30)
@given(names=st.lists(st.sampled_from(ALL), unique=True), seed=st.integers(0, 50), grouped=st.booleans())
def test_equal_images_are_never_torn_apart(names: list[str], seed: int, grouped: bool) -> None:
    labels = torch.arange(600) % 3
    drawn = torch.randint(0, 400, (600,), generator=torch.Generator().manual_seed(seed))
    contents = list(map(str, drawn.tolist()))
    groups = [str(row // 2) for row in range(600)] if grouped else None
    if grouped:  # chains of groups that share images would else be as long as the data
        contents[100:] = map(str, range(1000, 1500))
    parts = hold_out(labels, names, seed, groups=groups, contents=contents)
    assert torch.equal(torch.cat(list(parts.values())).sort().values, torch.arange(600))
    for tied in (contents, groups or contents):
        owner = {tied[row]: name for name, rows in parts.items() for row in rows.tolist()}
        assert all(owner[tied[row]] == name for name, rows in parts.items() for row in rows.tolist())


def test_one_image_many_times_is_torn_apart_rather_than_refused() -> None:
    labels = labels_of(40, 40)
    parts = hold_out(labels, ("test",), 0, contents=["one"] * 80)
    assert torch.equal(parts["test"], hold_out(labels, ("test",), 0)["test"])


def test_a_copy_moves_no_more_than_it_must() -> None:
    """Splits of data with a few copies are those without them, but for some rows."""
    labels = labels_of(300, 300)
    contents = [str(row) for row in range(600)]
    plain = hold_out(labels, ALL, 0, contents=contents)
    assert all(torch.equal(plain[n], rows) for n, rows in hold_out(labels, ALL, 0).items())
    torn = int(plain["train"][0]), int(plain["calibration"][0])
    contents[torn[1]] = contents[torn[0]]
    parts = hold_out(labels, ALL, 0, contents=contents)
    assert len({name for name, rows in parts.items() for row in torn if row in rows}) == 1
    moved = sum(len(set(rows.tolist()) - set(plain[name].tolist())) for name, rows in parts.items())
    assert 1 <= moved <= 6


def test_what_is_tied_over_several_rows_has_one_name() -> None:
    names = ["d", "c", "b", "a", "e"]
    assert together(names, ["1", "2", "2", "1", "3"]) == ["a", "b", "b", "a", "e"]
    chain = together(["a", "b", "b", "c", "c", "z"], ["1", "1", "2", "2", "3", "4"])
    assert chain == ["a"] * 5 + ["z"]


def test_a_split_does_not_depend_on_calls_or_on_its_neighbors() -> None:
    labels = labels_of(100, 200, 300)
    alone = hold_out(labels, ("calibration",), 7)["calibration"]
    torch.manual_seed(99)
    hold_out(labels, ALL, 8)
    assert torch.equal(hold_out(labels, ALL, 7)["calibration"], alone)
    assert torch.equal(hold_out(labels, ("calibration", "validation"), 7)["calibration"], alone)
    assert not torch.equal(hold_out(labels, ("calibration",), 8)["calibration"], alone)


def test_hold_out_refuses_tiny_classes(snapshot: SnapshotAssertion) -> None:
    assert refused(hold_out, labels_of(3, 3, 3), ("validation",), 0) == snapshot
    assert len(hold_out(labels_of(3, 3), (), 0)["train"]) == 6


def test_subset_keeps_proportions() -> None:
    labels = labels_of(500, 300, 200)
    rows = stratified(labels, 100, 0, "train")
    assert labels[rows].bincount().tolist() == [50, 30, 20]
    assert torch.equal(rows, rows.unique())
    assert labels[stratified(labels, 101, 0, "train")].bincount().sum() == 101
    assert torch.equal(stratified(labels, 1000, 0, "train"), torch.arange(1000))
    assert torch.equal(stratified(labels, 100, 0, "train"), rows)
    assert not torch.equal(stratified(labels, 100, 1, "train"), rows)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.data())
def test_subset_has_the_size_asked_for(counts: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, sum(counts)))
    rows = stratified(labels_of(*counts), n, 3, "any")
    assert len(rows) == n == len(rows.unique())


@pytest.mark.parametrize("n", [0, -1, 7])
def test_subset_refuses(n: int, snapshot: SnapshotAssertion) -> None:
    assert refused(stratified, labels_of(3, 3), n, 0, "any") == snapshot


def test_hold_out_is_pinned() -> None:
    """A change here would split every user's data anew: it must be meant."""
    labels = torch.arange(24) % 2
    parts = hold_out(labels, ("validation", "calibration"), 42)
    assert parts["validation"].tolist() == [1, 3, 6, 7, 20, 22]
    assert parts["calibration"].tolist() == [5, 10, 11, 12, 14, 23]


@settings(max_examples=30)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2)), min_size=30, max_size=80),
    names=st.lists(st.sampled_from(ALL), unique=True),
    seed=st.integers(0, 5),
)
def test_groups_are_held_out_whole(sizes: list[tuple[int, int]], names: list[str], seed: int) -> None:
    labels = torch.tensor([label for size, label in sizes for _ in range(size)])
    groups = [str(g) for g, (size, _) in enumerate(sizes) for _ in range(size)]
    try:
        parts = hold_out(labels, names, seed, groups=groups)
    except OfframpError as error:
        assert "no group is small enough" in str(error)
        return
    assert torch.equal(torch.cat(list(parts.values())).sort().values, torch.arange(len(labels)))
    groups_of = {name: {groups[row] for row in rows.tolist()} for name, rows in parts.items()}
    assert sum(map(len, groups_of.values())) == len(sizes)
    plain = hold_out(labels, names, seed) if names else {}
    for name in names:  # never more of a class than without groups
        most = torch.bincount(labels[plain[name]], minlength=3)
        assert (torch.bincount(labels[parts[name]], minlength=3) <= most).all()


def test_held_out_groups_depend_on_the_seed_and_not_on_their_neighbors() -> None:
    labels = torch.arange(400) // 4 % 2
    groups = [str(row // 4) for row in range(400)]
    every = hold_out(labels, ALL, 1, groups=groups)
    for name in ALL:
        alone = hold_out(labels, (name,), 1, groups=groups)
        assert torch.equal(alone[name], every[name])
        assert len(alone[name]) == 40  # a class of 200: 20 of it
    assert not torch.equal(hold_out(labels, ALL, 2, groups=groups)["test"], every["test"])


def test_a_mixed_group_counts_with_the_class_it_shows_most() -> None:
    labels = torch.tensor([0, 0, 1] * 40 + [1] * 60)
    groups = [f"mixed {row // 3}" for row in range(120)] + [f"pure {row}" for row in range(60)]
    parts = hold_out(labels, ("test",), 0, groups=groups)
    assert torch.bincount(labels[parts["test"]]).tolist() == [18, 9 + 13]


def test_groups_of_train_stay_whole_when_test_images_without_any_join_them() -> None:
    def split(groups: Sequence[str] | None, images: int) -> RawSplit:
        pixels = torch.arange(images, dtype=torch.uint8).repeat_interleave(16).view(-1, 1, 4, 4)
        return RawSplit(pixels, torch.arange(images) % 2, groups and tuple(groups))

    spec = DataSpec("own", test="held-out")
    both = RawData(split([str(row // 4) for row in range(200)], 200), split(None, 50), ("a", "b"))
    raw = with_test_split(both, spec)
    assert raw.train.groups is not None and len(set(raw.train.groups)) == 50 + 50
    shown = [{raw.train.groups[r] for r in part.rows} for part in choose(raw, spec).parts.values()]
    assert sum(map(len, shown)) == 100, "no group is in two splits"


def test_groups_too_large_to_hold_out(snapshot: SnapshotAssertion) -> None:
    labels = torch.arange(200) % 2
    groups = list(map(str, labels.tolist()))
    assert refused(hold_out, labels, ("test",), 0, groups=groups) == snapshot


def test_a_hash_takes_its_share_of_each_class_whatever_the_order(snapshot: SnapshotAssertion) -> None:
    labels = torch.tensor([0] * 100 + [1] * 10 + [2] * 2 + [3])
    keys = [f"key {row}" for row in range(113)]
    test = by_hash(labels, keys, 0.2)
    assert torch.bincount(labels[test], minlength=4).tolist() == [20, 2, 1, 0]  # never all of a class
    backward = by_hash(labels.flip(0), keys[::-1], 0.2)
    assert torch.equal(backward.flip(0), test)
    pairs = by_hash(torch.arange(80) // 40, [str(row // 2) for row in range(80)], 0.25)
    assert torch.equal(pairs[::2], pairs[1::2]) and pairs.sum() == 20
    for share in (0, 1, -1):
        assert refused(by_hash, labels, keys, share) == snapshot


def test_a_number_of_images_to_hold_out() -> None:
    labels = labels_of(1000, 500, 100, 4)
    parts = hold_out(labels, ("validation", "calibration"), 0, 321)
    for name in ("validation", "calibration"):
        assert torch.bincount(labels[parts[name]]).tolist() == [201, 101, 21, 1]  # rounded up; a quarter
    rows = torch.cat(list(parts.values()))
    assert torch.equal(rows.sort().values, torch.arange(len(labels)))
    alone = [str(row) for row in range(len(labels))]  # every image a group of its own
    grouped = hold_out(labels, ("validation", "calibration"), 0, 321, groups=alone)
    assert torch.bincount(labels[grouped["calibration"]]).tolist() == [201, 101, 21, 1]
