"""The caches of a run: within which limits, what a plan will hold in them, and what to say of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from offramp import device as devices
from offramp.engine.cache import Cache
from offramp.engine.cost import value_bytes
from offramp.engine.passes import CacheBytes
from offramp.engine.placement import (
    PLACES,
    CacheCandidate,
    Medium,
    ValueName,
    cache_candidates,
    place,
)
from offramp.engine.resolve import Node
from offramp.engine.values import FrozenValue, reads_of
from offramp.meters.capacity import free_memory
from offramp.study.plan.plan import Plan, grouped
from offramp.study.plan.workers import SHARE, need
from offramp.units import size

DISK_SHARE = 0.5  # of free disk space that caches may take
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")  # file systems without a disk
Holdings = dict[ValueName, tuple[Medium, int]]  # where each value is, and its bytes


@dataclass(frozen=True)
class CacheLimits:
    """Bytes that the caches of one process may take. no_disk: why there are none on disk, where that is
    not what the study says."""

    memory: int
    disk: int
    no_disk: str | None = None


@dataclass(frozen=True)
class Peak:
    """Bytes of caches at a time, at most. live: of values that stay live, of the group with most."""

    memory: int = 0
    disk: int = 0
    live: int = 0


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


def limits(
    plan: Plan,
    device: torch.device,
    folder: Path,
    workers: int = 1,
    memory: int | None = None,
    training: int | None = None,
    sharing: int = 1,
) -> CacheLimits:
    """What the caches of one of `workers` processes may take.

    Args:
        plan: Whose study may set limits, for all processes together.
        device: Where it trains. On a GPU caches lie in its memory, of which the same share may be taken;
            none on disk.
        folder: Where caches go that are too big for memory.
        workers: Processes that share the machine.
        memory: Bytes that the process may take in all; None for its share of what is free now.
        training: Bytes of them that go to all but caches; None estimates them.
        sharing: How many of the processes share the device, of a GPU.

    Returns:
        Bytes in memory and on disk.
    """
    execution, free = plan.study.execution, devices.free_memory(device)
    if not execution.cache:
        return CacheLimits(0, 0)
    limit, disk = execution.cache_memory, execution.cache_disk
    if free is not None:
        memory, disk = share(free, sharing), 0
    elif memory is None:
        memory = share(free_at_start(), workers)
    training = need(plan).trial if training is None else training
    room = max(0, memory - training) if limit == "auto" else limit // workers
    if disk == 0:
        return CacheLimits(room, 0)
    try:
        at = existing(folder)
        if in_memory(at):
            return CacheLimits(room, 0, f"{folder} lies in memory; set TMPDIR to a folder on a disk")
        if disk == "auto":
            disk = int(DISK_SHARE * shutil.disk_usage(at).free)
    except OSError as error:
        reason = str(error.strerror or error).lower()
        return CacheLimits(room, 0, f"{folder} cannot be used ({reason}); set TMPDIR to another folder")
    return CacheLimits(room, disk // workers)


def adapt(cache: Cache, plan: Plan, allowed: CacheLimits, device: torch.device, workers: int) -> None:
    """Where the study gives no limit, let caches in memory grow no further than others leave room."""
    if plan.study.execution.cache_memory == "auto" and device.type == "cpu":
        grown = cache.used("memory") + share(free_memory(), workers)
        cache.limit(min(allowed.memory, grown), allowed.disk)


def remarks(cache: Cache, cached: CacheBytes, allowed: CacheLimits) -> Iterator[str]:
    """What a user should know of where a group's values are; the same words each time."""
    slower = "some frozen values are computed for every batch, which takes longer and changes no result"
    for where in cache.refused():
        yield f"no room for caches {where}: {slower}"
    if cached.short:
        no_disk = "" if allowed.no_disk is None else f"; none on disk: {allowed.no_disk}"
        limits = f"{size(allowed.memory)} of memory and {size(allowed.disk)} of disk"
        yield (
            f"caches of a process may take {limits}, which is too little: {slower} "
            f"(cache_memory, cache_disk{no_disk})"
        )


def forecast(plan: Plan, allowed: CacheLimits) -> Peak:
    """What one process would cache for one seed; the others are alike."""
    if not plan.study.execution.cache:
        return Peak()
    sizes = value_bytes(plan.net)
    limits: dict[Medium, int] = {"memory": allowed.memory, "disk": allowed.disk}
    counts = plan.data.images_an_epoch
    cached: Holdings = {}
    peak = Peak()
    for group, later in _groups(plan):
        if max(node.recipe.epochs for node in group) > 1:
            candidates = cache_candidates(group, sizes, counts, plan.data.augment, cached)
            cached = _filled(candidates, cached, limits, group)
            live = sum(value.size for value in candidates if value.name not in cached)
            peak = Peak(
                max(peak.memory, _total(cached, "memory")),
                max(peak.disk, _total(cached, "disk")),
                max(peak.live, live),
            )
        needed = _with_ancestors(later)
        cached = {name: at for name, at in cached.items() if name[0] in needed}
    return peak


def _filled(
    candidates: Sequence[CacheCandidate],
    cached: Holdings,
    limits: Mapping[Medium, int],
    group: Sequence[Node],
) -> Holdings:
    """What is cached once a group has filled in its candidates; what is in the way goes."""
    needed = _with_ancestors(group)
    staying = {name: at for name, at in cached.items() if name[0] in needed}
    placed = place(candidates, {kind: limits[kind] - _total(staying, kind) for kind in PLACES})
    cached = cached | {v.name: (placed[v.name], v.size) for v in candidates if v.name in placed}
    for name, (kind, _) in list(cached.items()):
        if name[0] not in needed and _total(cached, kind) > limits[kind]:
            del cached[name]
    return cached


def _total(cached: Holdings, kind: Medium) -> int:
    return sum(size for where, size in cached.values() if where == kind)


def _with_ancestors(nodes: Sequence[Node]) -> set[FrozenValue]:
    return {ancestor for node in nodes for value in reads_of(node) for ancestor in value.chain}


def _groups(plan: Plan) -> Iterator[tuple[list[Node], list[Node]]]:
    """Nodes of the first seed as one process takes them, with those that come after."""
    waiting = [node for node in plan.nodes.values() if node.seed == plan.study.seeds[0]]
    done: set[str] = set()
    while waiting:
        ready = [node for node in waiting if done.issuperset(node.needs)]
        group, *_ = grouped(ready, plan.study.execution.fuse)
        done |= {node.key for node in group}
        waiting = [node for node in waiting if node.key not in done]
        yield group, waiting
