"""Memory that a process and those it forks see alike, in equal pieces."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Slots:
    """`count` pieces of `size` bytes each. The kernel frees the memory with the last process that has
    it. It is taken page by page as it is written, and has neither a name nor a place in /dev/shm."""

    count: int
    size: int
    memory: mmap.mmap

    @staticmethod
    def made(count: int, size: int) -> Slots | None:
        """None where the system gives no such memory."""
        try:
            return Slots(count, size, mmap.mmap(-1, count * size))
        except (OSError, ValueError, OverflowError):
            return None

    def array(self, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        """The first bytes of a slot as uint8 of `shape`; not a copy.

        Raises ValueError when they are more than its size.
        """
        count = int(np.prod(shape))
        if count > self.size or not 0 <= slot < self.count:
            raise ValueError(f"{shape} in slot {slot}; there are {self.count} of {self.size} bytes")
        whole = np.frombuffer(self.memory, np.uint8, count, slot * self.size)
        return whole.reshape(shape)
