"""Readings beside a training loop, a second apart, added up between any two points of it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

import psutil

from offramp.meters.sensors import NO_GPU, Gpu, Missing, Packages

PERIOD = 1.0  # seconds: RAPL moves a thousand times in it, and a reading takes less than one of them


@dataclass(frozen=True)
class Reading:
    """What the meters show at a moment. Joules and watts: None where there is no such meter."""

    at: float
    rss: int
    cpu_joules: float | None
    gpu_joules: float | None
    gpu_watts: float | None
    gpu_bytes: int | None


@dataclass(frozen=True)
class Usage:
    """What a stretch of work drew from the machine.

    Peaks are of readings a second apart. None: there is no such meter, or the work was over before it
    gave a value.

    Attributes:
        seconds: that it took.
        energy_cpu_j: joules of all CPU packages.
        energy_gpu_j: joules of the GPU.
        power_cpu_peak_w: the highest mean over about a second, in watts.
        power_gpu_peak_w: the highest reading, in watts.
        memory_rss_peak_bytes: of this process and its children.
        memory_gpu_peak_bytes: in use on the GPU, by every process.
        memory_torch_peak_bytes: what torch holds of it; the caller fills it in, as no meter here can.
    """

    seconds: float = 0.0
    energy_cpu_j: float | None = None
    energy_gpu_j: float | None = None
    power_cpu_peak_w: float | None = None
    power_gpu_peak_w: float | None = None
    memory_rss_peak_bytes: int | None = None
    memory_gpu_peak_bytes: int | None = None
    memory_torch_peak_bytes: int | None = None

    @property
    def power_cpu_mean_w(self) -> float | None:
        return _per(self.energy_cpu_j, self.seconds)

    @property
    def power_gpu_mean_w(self) -> float | None:
        return _per(self.energy_gpu_j, self.seconds)

    def plus(self, other: Usage) -> Usage:
        """Both stretches: times and energies add up (an energy that one of them lacks is lacking), of
        peaks the higher counts."""
        if not (self.seconds and other.seconds):
            times = self if self.seconds else other
            seconds, cpu, gpu = times.seconds, times.energy_cpu_j, times.energy_gpu_j
        else:
            seconds = self.seconds + other.seconds
            cpu = _sum(self.energy_cpu_j, other.energy_cpu_j)
            gpu = _sum(self.energy_gpu_j, other.energy_gpu_j)
        peaks: dict[str, Any] = {}
        for name in (field.name for field in fields(self) if "_peak_" in field.name):
            values = [v for v in (getattr(self, name), getattr(other, name)) if v is not None]
            peaks[name] = max(values, default=None)
        return Usage(seconds, cpu, gpu, **peaks)

    def divided(self, by: int) -> Usage:
        """The equal part of one of `by` phases that did this work together; peaks are of them all."""
        return replace(
            self,
            seconds=self.seconds / by,
            energy_cpu_j=_per(self.energy_cpu_j, by),
            energy_gpu_j=_per(self.energy_gpu_j, by),
        )


class Meter:
    """Reads every PERIOD seconds in a thread while it is entered, and whenever `lap` is called."""

    def __init__(
        self,
        packages: Packages | Missing,
        gpu: Gpu | Missing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._packages = packages
        self._gpu = gpu
        self._clock = clock
        self._family = ProcessFamily(psutil.Process(), clock)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="offramp-meter", daemon=True)
        self._last = self._window = self._read()
        self._sofar = Usage(memory_rss_peak_bytes=self._last.rss)
        self.idle = Usage()  # before the work, where `rest` was called

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def missing(self) -> dict[str, Missing]:
        """Meters that cannot be read, by what they would have measured."""
        meters = {"cpu power": self._packages, "gpu power": self._gpu}
        return {name: meter for name, meter in meters.items() if isinstance(meter, Missing)}

    def rest(self, seconds: float = 2 * PERIOD) -> None:
        """Wait, and keep what the machine draws meanwhile as `idle`; at once where nothing tells."""
        if len(self.missing) < 2:
            self.lap()
            time.sleep(seconds)
            self.idle = self.lap()

    def lap(self) -> Usage:
        """What was used since the last call of this, or since the meter was made."""
        with self._lock:
            self._take()
            used, self._sofar = self._sofar, Usage()
            return used

    def sample(self) -> None:
        """One reading, as the thread makes it."""
        with self._lock:
            self._take()

    def _watch(self) -> None:
        while not self._stop.wait(PERIOD):
            self.sample()

    def _take(self) -> None:
        new, old = self._read(), self._last
        drawn = _minus(new.gpu_joules, old.gpu_joules)
        if drawn is None and new.gpu_watts is not None and old.gpu_watts is not None:
            drawn = (new.gpu_watts + old.gpu_watts) / 2 * (new.at - old.at)
        self._sofar = self._sofar.plus(
            Usage(
                seconds=new.at - old.at,
                energy_cpu_j=_minus(new.cpu_joules, old.cpu_joules),
                energy_gpu_j=drawn,
                power_cpu_peak_w=self._watts(new),
                power_gpu_peak_w=new.gpu_watts,
                memory_rss_peak_bytes=new.rss,
                memory_gpu_peak_bytes=new.gpu_bytes,
            )
        )
        self._last = new

    def _watts(self, new: Reading) -> float | None:
        """Mean CPU power since the last time this gave one, once that is half a period ago: over
        shorter stretches the counter's steps would look like peaks."""
        old = self._window
        if new.at - old.at < PERIOD / 2:
            return None
        self._window = new
        return _per(_minus(new.cpu_joules, old.cpu_joules), new.at - old.at)

    def _read(self) -> Reading:
        joules = None
        if isinstance(self._packages, Packages):
            try:
                joules = self._packages.joules()
            except (OSError, ValueError) as error:
                self._packages = Missing(f"the RAPL counter can no longer be read ({error})")
        gpu = self._gpu if isinstance(self._gpu, Gpu) else None
        return Reading(
            at=self._clock(),
            rss=self._family.resident(),
            cpu_joules=joules,
            gpu_joules=gpu.joules() if gpu else None,
            gpu_watts=gpu.watts() if gpu else None,
            gpu_bytes=gpu.memory() if gpu else None,
        )


def not_measured(meter: Meter) -> list[str]:
    """A line for each meter that a user might expect and that is not there."""
    return [
        f"{name} is not measured: {missing}"
        for name, missing in meter.missing.items()
        if missing.reason != NO_GPU
    ]


class ProcessFamily:
    """The memory of a process and of its children, whose pages the kernel counts one by one: some
    milliseconds for each child, so they are looked at once a PERIOD and not at every lap."""

    def __init__(self, process: psutil.Process, clock: Callable[[], float] = time.monotonic) -> None:
        self._process = process
        self._clock = clock
        self._children = 0
        self._looked = -math.inf

    def resident(self) -> int:
        """Bytes. What children share (libraries, batches that they hand over, all that a fork has not
        written to) is their parent's: it counts once."""
        now = self._clock()
        if now - self._looked >= PERIOD:
            self._looked, self._children = now, 0
            for child in self._process.children(recursive=True):
                with suppress(psutil.Error):  # it ended meanwhile
                    self._children += _own(child)
        return int(self._process.memory_info().rss) + self._children


def _own(process: psutil.Process) -> int:
    """Bytes that no other process has; where the system keeps that to itself, what is not mapped."""
    try:
        return int(process.memory_full_info().uss)
    except psutil.AccessDenied:
        info = process.memory_info()
        return int(info.rss - getattr(info, "shared", 0))


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second


def _minus(new: float | None, old: float | None) -> float | None:
    return None if new is None or old is None else new - old


def _per(amount: float | None, of: float) -> float | None:
    return None if amount is None or not of else amount / of
