"""How much memory and disk a process may take: what the study says, or a share of what is free."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from offramp.meters.capacity import free_memory

SHARE = 0.6  # of free memory that a run may take in all: others live here too
DISK_SHARE = 0.5  # of free disk space that caches may take
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")  # file systems without a disk


@dataclass(frozen=True)
class CacheLimits:
    """Bytes that the caches of one process may take. no_disk: why there are none on disk, where that is
    not what the study says."""

    memory: int
    disk: int
    no_disk: str | None = None


def free_at_start() -> int:
    """Bytes of memory that a run which begins in this process has: what is free here, by the machine
    and by the control groups around it, and what this process holds already."""
    return free_memory() + int(psutil.Process().memory_info().rss)


def share(free: int, workers: int, parent: int = 0) -> int:
    """Bytes that each of `workers` processes may take in all, so that they stay below SHARE of `free`
    together. parent: bytes of a process beside them, which started them."""
    return max(0, int(SHARE * free) - (parent if workers > 1 else 0)) // workers


def share_of_workers(workers: int) -> int:
    """`share` of each of `workers` processes that this one is about to start."""
    return share(free_at_start(), workers, parent=int(psutil.Process().memory_info().rss))


def cache_folder(candidates: Sequence[Path] | None = None) -> Path:
    """Where files of caches go on this machine: the first of `candidates` (the system's folders for
    temporary files, by default) that is on a disk and can be written; the first one, where none is."""
    if candidates is None:
        candidates = (Path(tempfile.gettempdir()), Path("/var/tmp"))
    on_disk = (c for c in candidates if c.is_dir() and os.access(c, os.W_OK) and not in_memory(c))
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return next(on_disk, candidates[0]) / f"offramp-cache-{user}"


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def in_memory(folder: Path) -> bool:
    """Whether files of a folder lie in memory; where nothing tells, they do not."""
    place = folder.resolve()
    mounts = {Path(m.mountpoint): m.fstype for m in psutil.disk_partitions(all=True)}
    around = next((p for p in (place, *place.parents) if p in mounts), None)
    return around is not None and mounts[around] in IN_MEMORY
