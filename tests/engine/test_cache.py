"""Values kept for a while: how many, where, and that nothing of them is left."""

import errno
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fit_runs import program_nodes
from hypothesis import given, settings
from hypothesis import strategies as st
from one_step import every_weight
from torch import Tensor

import offramp.engine.cache
from offramp.augment import View
from offramp.engine.cache import Cache, CacheKey
from offramp.engine.passes import Derived, Images
from offramp.engine.placement import Medium
from offramp.engine.resolve import Source
from offramp.engine.values import FrozenValue, Point
from offramp.engine.weights import Weights
from support import CPU, network, tiny_data

ROWS, WIDTH = 10, 8
SIZE = ROWS * WIDTH * 4  # bytes of a value


def value(index: int, node: str = "a") -> FrozenValue:
    return FrozenValue(Point("tap", index), 42, (Source(node),) * index)


def key(index: int, split: str = "train", view: View | None = None, batch: int = 64) -> CacheKey:
    return value(index), split, view, batch


def batch(width: int = WIDTH) -> tuple[Tensor, ...]:
    return (torch.zeros(4, width),)


def fill(cache: Cache, *keys: CacheKey) -> None:
    for k in keys:
        cache.reserve(k, batch(), ROWS)
        cache.filled(k)


def test_a_value_is_there_once_it_is_filled(tmp_path: Path) -> None:
    cache = Cache(SIZE, 0, tmp_path)
    room = cache.reserve(key(1), batch(), ROWS)
    assert room is not None and room[0].shape == (ROWS, WIDTH)
    assert cache.get(key(1)) is None, "half of it is nothing"
    cache.filled(key(1))
    value = cache.get(key(1))
    assert value is not None and value[0] is room[0]


def test_values_differ_by_place_source_split_view_and_batch(tmp_path: Path) -> None:
    cache = Cache(10 * SIZE, 0, tmp_path)
    fill(cache, key(1))
    others: list[CacheKey] = [
        *(key(2), key(1, "validation"), key(1, batch=128), key(1, view=View(42, 0))),
        (value(1, "b"), "train", None, 64),
    ]
    assert all(cache.get(other) is None for other in others)


def test_memory_comes_first_then_the_disk_then_nothing(tmp_path: Path) -> None:
    cache = Cache(SIZE, SIZE, tmp_path / "caches")
    assert cache.reserve(key(1), batch(), ROWS) is not None
    assert (cache.used("memory"), cache.used("disk")) == (SIZE, 0)
    assert cache.reserve(key(2), batch(), ROWS) is not None
    assert (cache.used("memory"), cache.used("disk")) == (SIZE, SIZE)
    assert cache.reserve(key(3), batch(), ROWS) is None
    cache.close()
    assert cache.used("memory") == cache.used("disk") == 0
    assert not list(tmp_path.glob("caches/*"))


def test_room_is_free_again_once_a_value_is_dropped(tmp_path: Path) -> None:
    cache = Cache(SIZE, 0, tmp_path)
    cache.reserve(key(1), batch(), ROWS)
    assert cache.reserve(key(2), batch(), ROWS) is None
    cache.drop(key(1))
    assert cache.get(key(1)) is None
    assert cache.reserve(key(2), batch(), ROWS) is not None


@pytest.mark.parametrize("memory", [10**6, 0])
@pytest.mark.parametrize("nhwc", [False, True])
def test_what_is_written_is_read_in_the_same_layout(memory: int, nhwc: bool, tmp_path: Path) -> None:
    layout = torch.channels_last if nhwc else torch.contiguous_format
    images = torch.randn(ROWS, 3, 5, 4).contiguous(memory_format=layout)
    vectors = torch.arange(ROWS)
    cache = Cache(memory, 10**6, tmp_path)
    room = cache.reserve(key(1), (images[:4], vectors[:4]), ROWS)
    assert room is not None
    for low in range(0, ROWS, 4):
        room[0][low : low + 4] = images[low : low + 4]
        room[1][low : low + 4] = vectors[low : low + 4]
    cache.filled(key(1))
    value = cache.get(key(1))
    assert value is not None and torch.equal(value[0], images) and torch.equal(value[1], vectors)
    assert value[0].stride() == images.stride() and value[1].dtype == torch.int64
    rows = torch.tensor([7, 0, 3])
    assert value[0][rows].is_contiguous(memory_format=layout)
    cache.close()


def test_values_that_others_are_made_of_are_kept(tmp_path: Path) -> None:
    cache = Cache(10 * SIZE, 0, tmp_path)
    fill(cache, key(1), key(2), key(3))
    cache.keep({value(2)})
    assert cache.get(key(1)) is not None and cache.get(key(2)) is not None
    assert cache.get(key(3)) is None
    cache.keep(set())
    assert cache.used("memory") == 0


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_what_could_not_be_had_leaves_the_value_live_and_is_told_once(
    kind: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(kind, os.strerror(kind))

    monkeypatch.setattr(os, "posix_fallocate", full)
    cache = Cache(0, 10**6, tmp_path)
    assert cache.reserve(key(1), batch(), ROWS) is None
    assert cache.used("disk") == 0 and not list(tmp_path.iterdir())
    (place,) = cache.refused()
    assert str(tmp_path) in place and os.strerror(kind).lower() in place
    assert cache.refused() == []


def test_a_folder_that_cannot_be_leaves_the_value_live(tmp_path: Path) -> None:
    """A file stands where the folder is to be, which no one may write into, the superuser neither."""
    (tmp_path / "caches").write_text("in the way")
    cache = Cache(0, 10**6, tmp_path / "caches")
    assert cache.reserve(key(1), batch(), ROWS) is None
    assert cache.used("disk") == 0 and len(cache.refused()) == 1


def test_memory_that_cannot_be_had_leaves_the_value_live(tmp_path: Path) -> None:
    cache = Cache(2**62, 0, tmp_path)
    assert cache.reserve(key(1), (torch.zeros(1, 2**20),), 2**30) is None
    assert cache.used("memory") == 0 and "no memory" in cache.refused()[0]


def test_a_system_that_cannot_take_space_at_once_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    room = Cache(0, 10**6, tmp_path).reserve(key(1), batch(), ROWS)
    assert room is not None and torch.equal(room[0], torch.zeros(ROWS, WIDTH))


@pytest.mark.parametrize(
    ("memory", "disk"), [(0, 0), (SIZE - 1, 0), (0, SIZE - 1), (SIZE - 1, SIZE - 1)]
)
def test_limits_that_are_too_small_leave_the_value_live(memory: int, disk: int, tmp_path: Path) -> None:
    cache = Cache(memory, disk, tmp_path)
    assert cache.reserve(key(1), batch(), ROWS) is None
    assert cache.refused() == [], "a limit is no failure"


def test_a_value_goes_only_where_it_is_to_go(tmp_path: Path) -> None:
    cache = Cache(10 * SIZE, 10 * SIZE, tmp_path)
    cache.reserve(key(1), batch(), ROWS, ["disk"])
    cache.reserve(key(2), batch(), ROWS, ["memory"])
    assert cache.reserve(key(3), batch(), ROWS, []) is None
    assert cache.place(key(1)) is None, "not filled yet"
    for k in (key(1), key(2)):
        cache.filled(k)
    assert (cache.place(key(1)), cache.place(key(2)), cache.place(key(3))) == ("disk", "memory", None)
    assert (cache.used("memory"), cache.used("disk")) == (SIZE, SIZE)


def test_what_is_in_the_way_goes_and_what_is_needed_stays(tmp_path: Path) -> None:
    """Tap 2 is made of tap 1, so one that needs tap 2 needs both."""
    cache = Cache(3 * SIZE, 0, tmp_path)
    fill(cache, key(1), key(2), key(3))
    assert cache.room("memory", {value(3)}) == 0
    assert cache.room("memory", {value(2)}) == SIZE
    assert cache.reserve(key(1, "validation"), batch(), ROWS, needed={value(3)}) is None
    assert cache.place(key(3)) is not None, "nothing goes where that does not help"
    assert cache.reserve(key(1, "validation"), batch(), ROWS, needed={value(2)}) is not None
    assert cache.place(key(3)) is None and cache.place(key(1)) is not None
    assert cache.used("memory") == 3 * SIZE


def test_limits_that_shrink_drop_what_is_above_them(tmp_path: Path) -> None:
    cache = Cache(9 * SIZE, 9 * SIZE, tmp_path)
    for index, rows in ((1, ROWS), (2, 3 * ROWS), (3, ROWS)):
        for split, kind in (("train", "memory"), ("validation", "disk")):
            cache.reserve(key(index, split), batch(), rows, [kind])
            cache.filled(key(index, split))
    cache.limit(2 * SIZE, 9 * SIZE)
    assert (cache.used("memory"), cache.used("disk")) == (2 * SIZE, 5 * SIZE)
    assert cache.get(key(2)) is None and cache.get(key(1)) is not None, "the largest goes first"
    cache.limit(0, 0)
    assert cache.used("memory") == cache.used("disk") == 0
    assert cache.reserve(key(4), batch(), ROWS) is None


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reserve", "drop", "keep", "limit"]),
            st.integers(1, 6),
            st.integers(1, 30),
            st.sampled_from([("memory", "disk"), ("disk",), ("memory",)]),
        ),
        max_size=25,
    ),
    st.integers(0, 12),
    st.integers(0, 12),
)
def test_never_above_the_limits_whatever_happens(
    deeds: Sequence[tuple[str, int, int, Sequence[Medium]]], memory: int, disk: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(memory * SIZE, disk * SIZE, Path(folder))
        limits = (memory * SIZE, disk * SIZE)
        present: set[CacheKey] = set()
        for deed, index, rows, places in deeds:
            if deed == "reserve" and key(index) not in present:
                room = cache.reserve(key(index), batch(), rows, places, {value(index)})
                if room is not None:
                    cache.filled(key(index))
            elif deed == "drop" and key(index) in present:
                cache.drop(key(index))
            elif deed == "keep":
                cache.keep({value(index)})
            elif deed == "limit":
                limits = (index * SIZE, rows * SIZE)
                cache.limit(*limits)
            present = {key(i) for i in range(1, 7) if cache.get(key(i)) is not None}
            assert cache.used("memory") <= limits[0] and cache.used("disk") <= limits[1]
            values = {key(i): cache.get(key(i)) for i in range(1, 7)}
            sizes = {k: t[0].numel() * 4 for k, t in values.items() if t is not None}
            assert sum(sizes.values()) == cache.used("memory") + cache.used("disk")


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is mapped")
def test_pages_of_files_are_given_back_and_keep_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, width = 64, 2**15  # 8 MB
    monkeypatch.setattr(offramp.engine.cache, "MAPPED", 2**22)  # half of it
    cache = Cache(0, 10**8, tmp_path)
    (room,) = cache.reserve(key(1), batch(width), rows) or ()
    numbers = torch.arange(room.numel(), dtype=torch.float32).view(room.shape)
    room.copy_(numbers)
    cache.filled(key(1))
    before = mapped(tmp_path)
    cache.ease(1)
    assert mapped(tmp_path) >= before, "what was read little of stays"
    cache.ease(rows)
    assert before >= 8 * 2**20 > 100 * mapped(tmp_path)
    assert torch.equal(room[[5, 60, 0]], numbers[[5, 60, 0]])
    assert 0 < mapped(tmp_path) < 8 * 2**20
    cache.close()


@pytest.mark.parametrize(("epochs", "cached"), [((1, 1), False), ((2, 1), True), ((1, 2), True)])
def test_a_pass_is_cached_where_any_of_its_phases_reads_twice(
    tmp_path: Path, epochs: tuple[int, int], cached: bool
) -> None:
    nodes = [
        replace(node, recipe=replace(node.recipe, epochs=count))
        for node, count in zip(program_nodes("two-stage")[1:3], epochs, strict=True)
    ]
    weights = Weights(network("digits-cnn"), 42, lambda _: every_weight(), CPU)
    images = Images(tiny_data(), CPU)
    passes = Derived(images, nodes, weights, 64, Cache(2**30, 0, tmp_path))
    assert bool(passes.cached.memory) is cached


def mapped(folder: Path) -> int:
    """Bytes of files in a folder, deleted ones, that this process has in memory."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = str(folder) in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.parametrize("limits", [(10**6, 0), (0, 10**6)], ids=["memory", "disk"])
@pytest.mark.parametrize("shape", [(4, 6, 1, 1), (4, 6, 2, 3), (1, 6, 2, 3), (4, 6)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_layout_is_kept_to_the_letter(
    tmp_path: Path, limits: tuple[int, int], shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    """Also where a 1×1 map could be called either layout: some kernels choose by strides."""
    if len(shape) != 4 and layout is torch.channels_last:
        pytest.skip("only maps have it")
    like = torch.empty(shape, memory_format=layout)
    room = Cache(*limits, tmp_path).reserve(key(1), (like,), ROWS)
    assert room is not None and room[0].shape == (ROWS, *shape[1:])
    assert room[0].stride()[1:] == like.stride()[1:]
    numbers = torch.arange(room[0].numel(), dtype=torch.float32).view(room[0].shape)
    room[0].copy_(numbers)
    assert torch.equal(room[0][3:5], numbers[3:5])
