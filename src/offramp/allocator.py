"""How the C library hands out memory, set once for a process that computes."""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST, NEVER = 2**30, 2**31 - 1  # bytes


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed instead of giving it back to the kernel; whether that was done.

    By default buffers of some megabytes are mapped anew for each use, and the kernel clears every page
    of them again: hundreds of thousands of page faults in one training step of a MobileNet. The process
    then holds on to its largest size. No result depends on it. Left alone where the user set
    `MALLOC_…` variables, and where the C library is another one.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
