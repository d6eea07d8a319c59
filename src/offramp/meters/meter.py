"""Readings beside a training loop, a second apart, added up between any two points of it."""

from __future__ import annotations

import importlib
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import psutil

PERIOD = 1.0  # seconds: RAPL moves a thousand times in it, and a reading takes less than one of them
NO_GPU = "this runs on no GPU"
POWERCAP = Path("/sys/class/powercap")
Nvml = Any  # the module pynvml (NVIDIA's own binding, nvidia-ml-py), or one with its functions


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
    """

    seconds: float = 0.0  # that it took
    energy_cpu_j: float | None = None  # joules of all CPU packages
    energy_gpu_j: float | None = None  # joules of the GPU
    power_cpu_peak_w: float | None = None  # the highest mean over about a second, in watts
    power_gpu_peak_w: float | None = None  # the highest reading, in watts
    memory_rss_peak_bytes: int | None = None  # of this process and its children
    memory_gpu_peak_bytes: int | None = None  # in use on the GPU, by every process
    # what torch holds of it; the caller fills it in, as no meter here can
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


@dataclass(frozen=True)
class Missing:
    """A meter that is not there."""

    reason: str  # why it cannot be read here
    remedy: str = ""  # what would allow it, or empty where nothing would

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}" if self.remedy else self.reason


@dataclass(frozen=True)
class Zone:
    """A CPU package."""

    name: str  # as the kernel calls it
    counter: Path  # the file of its microjoules
    range_uj: int  # the counter goes from 0 to this, then on from 0


class Packages:
    """Joules of all CPU packages together since this was made, from the counters that Linux shows under
    /sys/class/powercap (RAPL). To be read more often than a counter wraps: a minute on large servers."""

    # Read directly: the counters are files with a number of microjoules, and the libraries around them
    # start a process a package and have no word for a counter that may not be read.

    def __init__(self, zones: list[Zone]) -> None:
        self._zones = zones
        self._last = [_number(zone.counter) for zone in zones]
        self._microjoules = 0

    @property
    def names(self) -> list[str]:
        return [zone.name for zone in self._zones]

    def joules(self) -> float:
        """Raises OSError or ValueError when a counter can no longer be read, or holds no number."""
        now = [_number(zone.counter) for zone in self._zones]
        for zone, new, old in zip(self._zones, now, self._last, strict=True):
            step = new - old if new >= old else new + zone.range_uj + 1 - old
            if step < 0:
                raise ValueError(f"{zone.counter} went from {old} to {new}, past its range")
            self._microjoules += step
        self._last = now
        return self._microjoules / 1e6


def find_packages(root: Path = POWERCAP) -> Packages | Missing:
    """The counters of this machine's CPU packages."""
    # Sub-zones (cores, memory) are inside a package or not of it, `psys` holds the packages, and an
    # `-mmio` zone is a second view of one: counted, each would count energy twice.
    try:
        folders = [folder for folder in sorted(root.glob("intel-rapl:*")) if folder.name.count(":") == 1]
        named = [((folder / "name").read_text().strip(), folder) for folder in folders]
        zones = [
            Zone(name, folder / "energy_uj", _number(folder / "max_energy_range_uj"))
            for name, folder in named
            if name.startswith("package")
        ]
        if not zones:
            return Missing(
                f"no RAPL energy counter in {root}",
                "a virtual machine or container must be given its host's, or the CPU has none",
            )
        return Packages(zones)
    except PermissionError as error:
        return Missing(
            f"{error.filename} may not be read",
            f"allow it with: sudo chmod a+r {root}/intel-rapl:*/energy_uj",
        )
    except (OSError, ValueError) as error:
        return Missing(f"the RAPL counters in {root} cannot be read ({error})")


def _number(file: Path) -> int:
    return int(file.read_text())


class Gpu:
    """One GPU. What it has no sensor for is None."""

    def __init__(self, nvml: Nvml, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        self._first = self._millijoules()

    def joules(self) -> float | None:
        """Joules since this was made."""
        now = self._millijoules()
        return None if now is None or self._first is None else (now - self._first) / 1e3

    def watts(self) -> float | None:
        milliwatts = self._read(self._nvml.nvmlDeviceGetPowerUsage)
        return None if milliwatts is None else float(milliwatts) / 1e3

    def memory(self) -> int | None:
        """Bytes in use on the GPU, by every process."""
        memory = self._read(self._nvml.nvmlDeviceGetMemoryInfo)
        return None if memory is None else int(memory.used)

    def _millijoules(self) -> int | None:
        energy = self._read(self._nvml.nvmlDeviceGetTotalEnergyConsumption)  # not by GPUs before Volta
        return None if energy is None else int(energy)

    def _read(self, sensor: Callable[[Any], Any]) -> Any:
        try:
            return sensor(self._handle)
        except self._nvml.NVMLError:
            return None


def find_gpu(uuid: str | None, nvml: Nvml | None = None) -> Gpu | Missing:
    """The GPU of this UUID (None: the run uses none)."""
    if uuid is None:
        return Missing(NO_GPU)
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return Missing(
                "NVIDIA's management library has no Python binding here",
                "install it with: pip install 'offramp[energy]'",
            )
    try:
        nvml.nvmlInit()
        return Gpu(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))
    except nvml.NVMLError as error:
        return Missing(f"NVML does not answer ({error})", "check that nvidia-smi works here")
