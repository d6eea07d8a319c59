"""Energy of CPU packages and of NVIDIA GPUs, as the machine counts it; or why it cannot be read here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NO_GPU = "this runs on no GPU"
POWERCAP = Path("/sys/class/powercap")
Nvml = Any  # the module pynvml (NVIDIA's own binding, nvidia-ml-py), or one with its functions


@dataclass(frozen=True)
class Missing:
    """A meter that is not there.

    Attributes:
        reason: why it cannot be read here.
        remedy: what would allow it, or empty where nothing would.
    """

    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}" if self.remedy else self.reason


@dataclass(frozen=True)
class Zone:
    """A CPU package.

    Attributes:
        name: as the kernel calls it.
        counter: the file of its microjoules.
        range_uj: the counter goes from 0 to this, then on from 0.
    """

    name: str
    counter: Path
    range_uj: int


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
