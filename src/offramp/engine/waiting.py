"""How OpenMP's threads wait for their next work: long on a quiet machine, short beside other work.

In GNU's library a waiting thread turns 300,000 times, some milliseconds, before it sleeps: best where
cores are free, and ruinous where others have work for them. Where a process has more of its threads than
there are cores, they turn 100 times (its manual, `GOMP_SPINCOUNT`). So a second team of threads, which
sleep, makes the others' waits short while it lives, whenever torch was imported. No bit depends on it.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from offramp.meters.capacity import usable_cores

SPIN_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # a user's own word on it
SHORT = 100  # turns of a thread beside other work
LOOK_S = 0.5  # between two looks at what else the machine does
SLACK = 0.3  # cores that others may use on a machine that counts as quiet
MOST_CORES = 256  # of a machine on which threads that only sleep are started, one more than these
MAPS = Path("/proc/self/maps")
BUSY_TIMES = ("user", "nice", "system", "irq", "softirq", "steal")


@dataclass(frozen=True)
class LoadSample:
    """Seconds so far: of a clock, of the cores that this process may use, and of this process."""

    clock: float
    cores: float
    own: float

    def others(self, before: LoadSample) -> float:
        """Cores that others kept busy since `before`."""
        seconds = self.clock - before.clock
        spent = self.cores - before.cores - (self.own - before.own)
        return max(0.0, spent / seconds) if seconds > 0 else 0.0


def load() -> LoadSample:
    """The load of this machine until now."""
    every = psutil.cpu_times(percpu=True)
    bound = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(every))
    mine = [every[core] for core in bound if core < len(every)]
    cores = sum(getattr(times, name, 0.0) for times in mine for name in BUSY_TIMES)
    return LoadSample(time.monotonic(), cores, time.process_time())


def crowded(others: float, threads: int, cores: int) -> bool:
    """Whether waiting threads hold cores that others have work for.

    Example:
        >>> crowded(others=1.0, threads=2, cores=2), crowded(others=4.0, threads=2, cores=8)
        (True, False)
    """
    return threads > 1 and others + threads > cores + SLACK


def library() -> Path | None:
    """GNU's library in this process, torch's own where there are several; None without one, and where
    the user said how threads wait."""
    if any(name in os.environ for name in SPIN_VARIABLES):
        return None
    try:
        lines = MAPS.read_text().splitlines()
    except OSError:  # not Linux
        return None
    paths = dict.fromkeys(Path(line.split(maxsplit=5)[5]) for line in lines if "/libgomp" in line)
    of_torch = [path for path in paths if {"torch", "torch.libs"} & {*path.parts}]
    return next(iter([*of_torch, *paths]), None)


@contextmanager
def waits_by_load(
    threads: int | None = None, sample: Callable[[], LoadSample] = load, pause: float = LOOK_S
) -> Iterator[None]:
    """While the block runs, a thread looks at the machine now and then and has OpenMP's threads wait
    long or short by what others leave of it.

    Nothing happens with one thread, with another library than GNU's, or where the user said how threads
    wait (SPIN_VARIABLES).

    Args:
        threads: That compute in the block; None stands for as many as there are cores.
        pause: Seconds between two looks.
    """
    cores = os.cpu_count() or 1
    path = library() if threads != 1 and cores <= MOST_CORES else None
    if path is None:
        yield
        return
    over = threading.Event()
    arguments = (path, threads or usable_cores(), sample, pause, over)
    thread = threading.Thread(target=_watch, args=arguments, name="offramp load", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(
    path: Path,
    threads: int,
    sample: Callable[[], LoadSample],
    pause: float,
    over: threading.Event,
) -> None:
    before, cores = sample(), len(os.sched_getaffinity(0))  # Linux, as `library` is
    with ExitStack() as stack:
        is_short = False
        while not over.wait(pause):
            now = sample()
            short = crowded(now.others(before), threads, cores)
            before = now
            if short != is_short:
                stack.close()
                if short:
                    stack.enter_context(short_waits(path))
                is_short = short


@contextmanager
def short_waits(path: Path) -> Iterator[None]:
    """OpenMP's threads wait for a short while in the block. path: of GNU's library."""
    cores = os.cpu_count() or 1
    if not _startable(cores):  # where it cannot start a thread, the library ends the process
        yield
        return
    ready, over = threading.Event(), threading.Event()

    def team() -> None:
        # Each thread frees nothing, and sleeps until the thread that called them ends.
        function = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)
        ctypes.CDLL(str(path)).GOMP_parallel(function, None, cores + 1, 0)
        ready.set()
        over.wait()

    thread = threading.Thread(target=team, name="offramp waits", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _startable(count: int) -> bool:
    """Whether the system lets this process start so many threads: memory and other things limit them."""
    over = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=over.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        return False
    finally:
        over.set()
        for thread in started:
            thread.join()
    return True
