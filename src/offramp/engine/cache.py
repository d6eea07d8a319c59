"""Frozen values of whole splits: computed once, read every epoch.

A cache belongs to the process that made it; it is never part of the store.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor

from offramp.augment import View
from offramp.engine.placement import Medium, ValueName
from offramp.engine.values import FrozenValue, Tensors

# The value, the split, the random view of its images (None: as they are), rows a batch it was made with.
CacheKey = tuple[FrozenValue, str, View | None, int]


MAPPED = 256 * 2**20  # bytes of files that a process has mapped at a time, about; see `Cache.ease`
LEAST_MAPPED = 2**16  # bytes that come with a row: the kernel maps some pages around the one asked for
PIECE = 2**20  # bytes written at a time


@dataclass
class _Entry:
    """A value, the bytes it takes and where, and the maps of its files."""

    room: Tensors
    size: int
    place: Medium
    maps: list[mmap.mmap]


class Cache:
    """Frozen values of whole splits.

    A file loses its name as soon as it is mapped: its space is free again when the value is dropped or
    the process ends, however it ends.

    Args:
        memory: Bytes at most; likewise `disk`.
        folder: Of the files.
    """

    def __init__(self, memory: int, disk: int, folder: Path) -> None:
        self._limits: dict[Medium, int] = {"memory": memory, "disk": disk}
        self._folder = folder
        self._entries: dict[CacheKey, _Entry] = {}
        self._filled: set[CacheKey] = set()
        self._mapped = 0
        self._refused: list[str] = []

    def get(self, key: CacheKey) -> Tensors | None:
        """All rows of a value, once they are there."""
        return self._entries[key].room if key in self._filled else None

    def place(self, key: CacheKey) -> Medium | None:
        """Where a value is; None where it is not."""
        return self._entries[key].place if key in self._filled else None

    def names(self, batch: int) -> set[ValueName]:
        """Values and looks that are there, made with so many rows a batch."""
        return {(value, (split, view)) for value, split, view, rows in self._filled if rows == batch}

    def filled(self, key: CacheKey) -> None:
        """Every row of what was reserved has been written."""
        self._filled.add(key)

    def used(self, place: Medium) -> int:
        """Bytes of values, in `memory` or on `disk`."""
        return sum(entry.size for entry in self._entries.values() if entry.place == place)

    def room(self, place: Medium, needed: Collection[FrozenValue]) -> int:
        """Bytes that new values may take, if all but `needed` ones and what they are made of go."""
        staying = _with_ancestors(needed)
        here = (entry for key, entry in self._entries.items() if key[0] in staying)
        used = sum(entry.size for entry in here if entry.place == place)
        return max(0, self._limits[place] - used)

    def limit(self, memory: int, disk: int) -> None:
        """Other limits from now on; what is above them is dropped, the largest first."""
        self._limits = {"memory": memory, "disk": disk}
        for place, limit in self._limits.items():
            here = [key for key, entry in self._entries.items() if entry.place == place]
            for key in sorted(here, key=lambda key: -self._entries[key].size):
                if self.used(place) > limit:
                    self.drop(key)

    def reserve(
        self,
        key: CacheKey,
        like: Tensors,
        rows: int,
        places: Sequence[Medium] = ("memory", "disk"),
        needed: Collection[FrozenValue] | None = None,
    ) -> Tensors | None:
        """Room for a value of so many rows, each as in the batch `like`, in the first of the places that
        has any. needed: what other values have goes where it is in the way; None: nothing goes.

        Returns:
            The room; None where no place has any, or it cannot be had after all: the value stays live.
        """
        size = sum(t[0].numel() * t.element_size() for t in like) * rows
        for place in places:
            if place == "disk" and like[0].device.type != "cpu":
                continue
            if needed is not None:
                self._make_room(place, size, needed)
            if self.used(place) + size > self._limits[place]:
                continue
            try:
                entry = self._allocated(place, like, rows, size)
            except (OSError, RuntimeError) as error:  # a full or locked disk; no memory to be had
                reason = error.strerror if isinstance(error, OSError) else "no memory"
                where = f"in {self._folder}" if place == "disk" else "in memory"
                self._refused.append(f"{where} ({str(reason).lower()})")
                continue
            self._entries[key] = entry
            return entry.room
        return None

    def refused(self) -> list[str]:
        """Where room within the limits could not be had, since the last call."""
        places, self._refused = self._refused, []
        return places

    def ease(self, rows: int) -> None:
        """So many rows of every value were read. Pages of files that were mapped for that count as
        memory of this process, although the kernel could have them back at any time: give them back,
        once they are many."""
        files = [entry for entry in self._entries.values() if entry.maps]
        if sum(entry.size for entry in files) <= MAPPED:
            return
        for entry in files:
            row = entry.size // max(1, len(entry.room[0]))
            self._mapped += min(entry.size, rows * max(LEAST_MAPPED, row))
        if self._mapped > MAPPED:
            for area in (area for entry in files for area in entry.maps):
                area.madvise(mmap.MADV_DONTNEED)  # of a shared map: the file keeps what was written
            self._mapped = 0

    def keep(self, values: Collection[FrozenValue]) -> None:
        """Drop every value that is not among `values` and that none of them is computed from."""
        staying = _with_ancestors(values)
        for key in [key for key in self._entries if key[0] not in staying]:
            self.drop(key)

    def drop(self, key: CacheKey) -> None:
        del self._entries[key]
        self._filled.discard(key)

    def close(self) -> None:
        for key in list(self._entries):
            self.drop(key)

    def _make_room(self, place: Medium, size: int, needed: Collection[FrozenValue]) -> None:
        """Drop what is in the way of `size` more bytes and not `needed`, if that is enough."""
        if self.room(place, needed) < size:
            return
        staying = _with_ancestors(needed)
        here = [key for key, entry in self._entries.items() if entry.place == place]
        for key in here:
            if key[0] not in staying and self.used(place) + size > self._limits[place]:
                self.drop(key)

    def _allocated(self, place: Medium, like: Tensors, rows: int, size: int) -> _Entry:
        match place:
            case "memory":
                return _Entry(tuple(_empty(t, rows) for t in like), size, place, [])
            case "disk":
                self._folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix="cache-", dir=self._folder) as folder:
                    files = [Path(folder) / str(i) for i in range(len(like))]
                    maps = [_map(_bytes(t, rows), file) for t, file in zip(like, files, strict=True)]
                room = tuple(_on(area, t, rows) for area, t in zip(maps, like, strict=True))
                return _Entry(room, size, place, maps)
            case _:
                assert_never(place)


def _with_ancestors(values: Collection[FrozenValue]) -> set[FrozenValue]:
    return {ancestor for value in values for ancestor in value.chain}


def _strides(like: Tensor) -> tuple[int, ...]:
    """The layout of a batch, for as many rows as there are. Kept to the letter, also where a 1×1 map
    could be called either layout: kernels choose by strides."""
    dense = like.is_contiguous() or (
        like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last)
    )
    within = like.stride()[1:] if dense else like.contiguous().stride()[1:]
    return (like[0].numel(), *within)


def _empty(like: Tensor, rows: int) -> Tensor:
    shape = (rows, *like.shape[1:])
    return torch.empty_strided(shape, _strides(like), dtype=like.dtype, device=like.device)


def _bytes(like: Tensor, rows: int) -> int:
    return rows * like[0].numel() * like.element_size()


def _map(size: int, path: Path) -> mmap.mmap:
    """A file of `size` bytes, mapped. Its space is taken at once: a full disk shows here, not in
    mid-training, where it would end the process."""
    size = max(1, size)
    with path.open("w+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # macOS
            for low in range(0, size, PIECE):
                file.write(bytes(min(PIECE, size - low)))
            file.flush()
        return mmap.mmap(file.fileno(), size)


def _on(area: mmap.mmap, like: Tensor, rows: int) -> Tensor:
    """A tensor in a mapped file."""
    flat = torch.frombuffer(area, dtype=like.dtype, count=rows * like[0].numel())
    return flat.as_strided((rows, *like.shape[1:]), _strides(like))
