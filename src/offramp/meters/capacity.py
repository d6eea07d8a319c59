"""What a process may use of this machine: cores and memory, by the limits set on it and not only by
what is built in; and how many cores others keep busy."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")  # where Linux shows control groups: one tree, or of version 1 several
MINE = Path("/proc/self/cgroup")
KILLS = ("memory.events", "memory.oom_control")  # of version 2 and of version 1
MACHINE = Path("/proc/vmstat")
MANY = 1024  # cores, more than any machine has
BUSY = 0.5  # cores kept busy by other processes from which on measured times mislead


def usable_cores(groups: Path = GROUPS, mine: Path = MINE) -> int:
    """Cores that this process may run on, at least 1: those it is bound to, and at most as many as its
    control groups (a container's, say) give it time for."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = []
    for folder in _folders(groups, mine, "cpu"):
        quota, period = _quota(folder)
        if quota is not None and period:
            shares.append(quota // period)
    return max(1, min([bound, *shares]))


def computing_cores(groups: Path = GROUPS, mine: Path = MINE) -> int:
    """`usable_cores`, of which two that share a core's arithmetic (hyperthreads) count once."""
    return min(usable_cores(groups, mine), psutil.cpu_count(logical=False) or MANY)


def free_memory(groups: Path = GROUPS, mine: Path = MINE) -> int:
    """Bytes that this process may still take without anything being swapped or killed."""
    free = [machine_memory()]
    for folder in _folders(groups, mine, "memory"):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            free.append(limit - used + _reclaimable(folder))
    return max(0, min(free))


def machine_memory() -> int:
    """Bytes that this machine has free, whatever limits there are."""
    return int(psutil.virtual_memory().available)


def free_addresses() -> float:
    """Bytes that this process may still map, where that is limited (`ulimit -v`); infinity elsewhere."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return math.inf
    return max(0, limit - int(psutil.Process().memory_info().vms))


def killed_for_memory(groups: Path = GROUPS, mine: Path = MINE) -> int:
    """How many processes of this one's control group the kernel has killed for lack of memory, the
    group's or the machine's; of the whole machine where there are no groups, 0 where nothing tells."""
    places = [f / name for f in _folders(groups, mine, "memory") for name in KILLS]
    for path in (*places, MACHINE):
        try:
            counters = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
            return int(counters["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0


def _folders(groups: Path, mine: Path, controller: str) -> Iterator[Path]:
    """This process's control groups of a controller, each with all it lies in; of both versions."""
    try:
        lines = mine.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        top = groups if not names else groups / controller
        place = top / path.lstrip("/")
        yield place
        yield from (folder for folder in place.parents if folder.is_relative_to(top))


def _quota(folder: Path) -> tuple[int | None, int | None]:
    """Microseconds of core time in every so many; None where there is no limit."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return (None if quota == "max" else int(quota)), int(period)
    except (OSError, ValueError):
        quota_v1 = _number(folder / "cpu.cfs_quota_us")
        unlimited = quota_v1 is None or quota_v1 < 0
        return (None if unlimited else quota_v1), _number(folder / "cpu.cfs_period_us")


def _number(*paths: Path) -> int | None:
    """What the first of these files that can be read says; None for `max` and where there is none."""
    for path in paths:
        try:
            return int(path.read_text())
        except (OSError, ValueError):
            continue
    return None


def _reclaimable(folder: Path) -> int:
    """Bytes of files that the kernel holds for the group and gives up when memory is asked for."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    bytes_ = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return int(bytes_.get("total_inactive_file", bytes_.get("inactive_file", 0)))


def busy_cores() -> float:
    """Cores that other processes keep busy, over half a second in which this one waits."""
    return float(psutil.cpu_percent(interval=0.5)) / 100 * (psutil.cpu_count() or 1)
