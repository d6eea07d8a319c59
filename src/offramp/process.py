"""What is set once for a process that computes, before torch is loaded: memory, waiting, garbage.

No result depends on any of it, and what the user set in the environment stays.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys

from offramp.errors import OfframpError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST, NEVER = 2**30, 2**31 - 1  # bytes
SPINS = 700  # turns of the loop: some tens of microseconds
GIVEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # a user's own word on waiting
# Objects made since the last look for garbage, instead of 700: imports make hundreds of thousands that
# stay, and looking through them again and again took a sixth of a command's start.
OBJECTS = 10_000
GC_GIVEN = "OFFRAMP_GC_THRESHOLD"  # another number of them, in the environment
GC_MOST = 2**31 - 1  # that Python takes


def prepare() -> None:
    """What a command sets for its process, before it imports torch."""
    look_less_for_garbage()
    keep_freed_memory()
    bound_spinning()


def look_less_for_garbage() -> None:
    """No result depends on it. Raises OfframpError where the environment says no number it can be."""
    given = os.environ.get(GC_GIVEN, str(OBJECTS))
    if not given.isdecimal() or int(given) > GC_MOST:
        raise OfframpError(f"{GC_GIVEN} is '{given}'; give a number of objects (Python's own is 700)")
    gc.set_threshold(int(given))


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


def bound_spinning() -> bool:
    """Have GNU OpenMP's threads look for work a short while, then sleep; whether that holds.

    By default a thread that waits turns 300,000 times, milliseconds in which it keeps a core from
    whoever else has work: with one other busy process a training step takes several times as long.
    Threads that sleep at once must be woken for every operation, which tells where operations are
    small. OpenMP reads its settings once, when torch is loaded: later this does nothing. Processes
    started from here inherit it. No result depends on it. What the user set stays.
    """
    if any(name in os.environ for name in GIVEN):
        return os.environ.get("GOMP_SPINCOUNT") == str(SPINS)
    if "torch" in sys.modules:
        return False
    os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    return True
