"""Frozen values of whole splits: computed once, read every epoch.

A cache belongs to the process that made it; it is never part of the store.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from offramp.augment import View
from offramp.engine.values import Frozen, Tensors

# The value, the split, the random view of its images (None: as they are), rows a batch it was made with.
Key = tuple[Frozen, str, View | None, int]


class Cache:
    """Values in memory up to `memory` bytes, then in files of `folder` up to `disk` bytes.

    A file loses its name as soon as it is mapped: its space is free again when the value is dropped or
    the process ends, however it ends.
    """

    def __init__(self, memory: int, disk: int, folder: Path) -> None:
        self._limits = {"memory": memory, "disk": disk}
        self._folder = folder
        self._held: dict[Key, tuple[Tensors, dict[str, int]]] = {}
        self._filled: set[Key] = set()

    def get(self, key: Key) -> Tensors | None:
        """All rows of a value, once they are there."""
        return self._held[key][0] if key in self._filled else None

    def filled(self, key: Key) -> None:
        """Every row of what was reserved has been written."""
        self._filled.add(key)

    def used(self, kind: str) -> int:
        """Bytes held, of `memory` or `disk`."""
        return sum(size.get(kind, 0) for _, size in self._held.values())

    def reserve(self, key: Key, like: Tensors, rows: int) -> Tensors | None:
        """Room for `rows` rows of a value whose batch looks `like`; None where no limit has room or
        the disk is full, and the value stays live."""
        size = sum(t[0].numel() * t.element_size() for t in like) * rows
        if self.used("memory") + size <= self._limits["memory"]:
            room = tuple(_empty(t, rows) for t in like)
            self._held[key] = (room, {"memory": size})
            return room
        if self.used("disk") + size <= self._limits["disk"] and like[0].device.type == "cpu":
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix="cache-", dir=self._folder) as folder:
                    files = [Path(folder) / str(i) for i in range(len(like))]
                    room = tuple(_mapped(t, rows, f) for t, f in zip(like, files, strict=True))
            except OSError:
                return None
            self._held[key] = (room, {"disk": size})
            return room
        return None

    def keep(self, values: Collection[Frozen]) -> None:
        """Drop every value that is not among `values` and that none of them is computed from."""
        wanted = {ancestor for value in values for ancestor in value.chain}
        for key in [key for key in self._held if key[0] not in wanted]:
            self.drop(key)

    def drop(self, key: Key) -> None:
        del self._held[key]
        self._filled.discard(key)

    def close(self) -> None:
        for key in list(self._held):
            self.drop(key)


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


def _mapped(like: Tensor, rows: int, path: Path) -> Tensor:
    """A tensor in a file. Its space is taken at once: a full disk shows here, not in mid-training."""
    count = rows * like[0].numel()
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(handle, 0, max(1, count * like.element_size()))
    finally:
        os.close(handle)
    flat = torch.from_file(str(path), shared=True, size=count, dtype=like.dtype)
    return flat.as_strided((rows, *like.shape[1:]), _strides(like))
