"""Energy of the CPU packages, from the counters that Linux shows under /sys/class/powercap (RAPL).

Read directly: the counters are files with a number of microjoules, and the libraries around them start
a process a package and have no word for a counter that may not be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from offramp.meters.missing import Missing

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Zone:
    """One package. name: as the kernel calls it.  range_uj: the counter goes from 0 to this, then on
    from 0."""

    name: str
    counter: Path
    range_uj: int


class Packages:
    """Joules of all packages together since this was made. To be read more often than a counter wraps
    (a minute at the least on the largest servers)."""

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
    """The counters of this machine's CPU packages.

    Sub-zones (cores, memory) are inside a package or not of it, `psys` holds the packages, and an
    `-mmio` zone is a second view of one: counted, each would count energy twice.
    """
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
