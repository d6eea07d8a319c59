"""Values kept for a while: how many, where, and that nothing of them is left."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from offramp.augment import View
from offramp.engine.cache import Cache, Key
from offramp.engine.resolve import Source
from offramp.engine.values import Frozen, Point

ROWS, WIDTH = 10, 8
SIZE = ROWS * WIDTH * 4  # bytes of a value


def value(index: int, node: str = "a") -> Frozen:
    return Frozen(Point("tap", index), 42, (Source(node),) * index)


def key(index: int, split: str = "train", view: View | None = None, batch: int = 64) -> Key:
    return value(index), split, view, batch


def batch(width: int = WIDTH) -> tuple[Tensor, ...]:
    return (torch.zeros(4, width),)


def test_a_value_is_there_once_it_is_filled(tmp_path: Path) -> None:
    cache = Cache(SIZE, 0, tmp_path)
    room = cache.reserve(key(1), batch(), ROWS)
    assert room is not None and room[0].shape == (ROWS, WIDTH)
    assert cache.get(key(1)) is None, "half of it is nothing"
    cache.filled(key(1))
    held = cache.get(key(1))
    assert held is not None and held[0] is room[0]


def test_values_differ_by_place_source_split_view_and_batch(tmp_path: Path) -> None:
    cache = Cache(10 * SIZE, 0, tmp_path)
    cache.reserve(key(1), batch(), ROWS)
    cache.filled(key(1))
    others: list[Key] = [
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
    held = cache.get(key(1))
    assert held is not None and torch.equal(held[0], images) and torch.equal(held[1], vectors)
    assert held[0].stride() == images.stride() and held[1].dtype == torch.int64
    rows = torch.tensor([7, 0, 3])
    assert held[0][rows].is_contiguous(memory_format=layout)
    cache.close()


def test_values_that_others_are_made_of_are_kept(tmp_path: Path) -> None:
    cache = Cache(10 * SIZE, 0, tmp_path)
    for k in (key(1), key(2), key(3)):
        cache.reserve(k, batch(), ROWS)
        cache.filled(k)
    cache.keep({value(2)})
    assert cache.get(key(1)) is not None and cache.get(key(2)) is not None
    assert cache.get(key(3)) is None
    cache.keep(set())
    assert cache.used("memory") == 0


def test_a_full_disk_leaves_the_value_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    cache = Cache(0, 10**6, tmp_path / "caches")
    assert cache.reserve(key(1), batch(), ROWS) is None
    assert cache.used("disk") == 0 and not list(tmp_path.glob("caches/*"))


def test_closing_leaves_no_file(tmp_path: Path) -> None:
    cache = Cache(0, 10**6, tmp_path / "caches")
    cache.reserve(key(1), batch(), ROWS)
    cache.close()
    assert not list(tmp_path.glob("caches/*"))


@pytest.mark.parametrize("limits", [(10**6, 0), (0, 10**6)], ids=["memory", "disk"])
@pytest.mark.parametrize("shape", [(4, 6, 1, 1), (4, 6, 2, 3), (1, 6, 2, 3), (4, 6)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_layout_is_kept_to_the_letter(
    tmp_path: Path,
    limits: tuple[int, int],
    shape: tuple[int, ...],
    layout: torch.memory_format,
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


def test_either_layout_of_a_map_of_one_pixel(tmp_path: Path) -> None:
    cache = Cache(10**6, 0, tmp_path)
    for at, strides in enumerate([(6, 1, 1, 1), (6, 1, 6, 6)], start=1):
        like = torch.empty_strided((4, 6, 1, 1), strides)
        room = cache.reserve(key(at), (like,), ROWS)
        assert room is not None and room[0].stride() == strides
