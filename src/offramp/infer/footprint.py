"""What answering draws from the machine: energy an image, and memory. Neither torch nor onnxruntime is
imported here."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psutil

from offramp.meters import Meter


@dataclass(frozen=True)
class Footprint:
    """joules: of an image.  memory: bytes, beside libraries. None: it was not measured."""

    joules: float | None = None
    memory: int | None = None


NOTHING = Footprint()
STATUS = Path("/proc/self/status")
SECONDS = 2.0  # of each thing: meters of energy tick as seldom as ten times a second


def joules(
    run: Callable[[], object],
    images: int,
    meter: Meter,
    wait: Callable[[], None] = lambda: None,
    seconds: float = SECONDS,
    clock: Callable[[], float] = perf_counter,
) -> float | None:
    """Joules an image, of the CPU packages and the GPU, all that they draw meanwhile included; None
    where neither is measured.

    run: answers `images` images; it is called for `seconds`.  meter: is running.  wait: for the device.
    """
    if len(meter.missing) == 2:
        return None
    wait()
    meter.lap()
    began, turns = clock(), 0
    while turns == 0 or clock() - began < seconds:
        run()
        wait()
        turns += 1
    used = meter.lap()
    drawn = [part for part in (used.energy_cpu_j, used.energy_gpu_j) if part is not None]
    return sum(drawn) / (turns * images) if drawn else None


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """The most bytes of this process that were in memory at once."""
    if STATUS.exists():  # getrusage tells of the process that started this one, where that had more
        (line,) = (each for each in STATUS.read_text().splitlines() if each.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else 1024 * most)
