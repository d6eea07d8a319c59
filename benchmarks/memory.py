"""Peak memory: of caches against the limit that was given, and of a whole run against what was free.

A small network on many images, whose maps are large for what they take to compute, so that its caches
want more than there is. The limit is of caches: what they add is the peak over that of the same run
without any. Without a limit it is the whole process that counts, where another one leaves little free.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import psutil

from benchmarks import subjects
from benchmarks.contest import AS_COMMAND, Contender, Result, Say
from benchmarks.subjects import Setting
from offramp.meters import free_memory

MIB = 2**20
LEFT = 3 * 2**30  # bytes that are free beside the process that holds memory
SETTING = Setting(
    "digits-cnn",
    images=50_000,
    epochs=2,
    strategies=("branch-wise", "two-stage"),
    data=subjects.MADE,  # reading files would take memory too, at its own time
    execution={"loader": "resident"},
)


@dataclass(frozen=True)
class Peak:
    """Bytes. resident: the most that lay in memory; own: without pages of files, which the system can
    take back.  free: when the run began, what its process held then included."""

    resident: int
    own: int
    free: int


def measure(quick: bool, say: Say) -> Iterator[Result]:
    setting, limit = (replace(SETTING, images=10_000), 64 * MIB) if quick else (SETTING, 256 * MIB)
    wanted = max(work.cache_bytes for work in subjects.plan(setting).work.values())
    run = f"{setting.backbone}, {', '.join(setting.strategies)}, {setting.images:,} {setting.data}"
    none, found = peak(setting, cache=False), peak(setting, cache_memory=limit)
    # Held to the limit is what only this process can give back.
    for name, bar, kind in (("peak", 1.0, "own"), ("peak, pages of files included,", None, "resident")):
        with_caches, without = getattr(found, kind), getattr(none, kind)
        yield Result(
            f"memory: what caches add to the {name} / their limit",
            (with_caches - without) / limit,
            bar,
            note=f"limit {limit / MIB:,.0f} MiB, a phase wants {wanted / MIB:,.0f}, the rest in files; "
            f"{with_caches / MIB:,.0f} MiB against {without / MIB:,.0f} without caches; {run}",
        )
    held = 0 if quick else max(0, free_memory() - LEFT)
    with ExitStack() as stack:
        if held:
            stack.enter_context(Contender(holding, size=held))
        found = peak(setting)
    beside = " beside a process that holds the rest" if held else ""
    yield Result(
        "memory: peak of a run without a limit / what was free",
        found.resident / found.free,
        0.6,
        note=f"peak {found.resident / MIB:,.0f} MiB of {found.free / MIB:,.0f} free{beside}; a phase "
        f"wants caches of {wanted / MIB:,.0f}; {run}",
    )
    say(f"  a phase wants {wanted / MIB:,.0f} MiB of caches")


def peak(setting: Setting, **execution: Any) -> Peak:
    """Of a run in a process of its own. execution: further settings."""
    setting = replace(setting, execution={**setting.execution, **execution})
    with (
        tempfile.TemporaryDirectory(prefix="offramp-memory-") as folder,
        Contender(whole, AS_COMMAND, setting=setting, folder=folder) as contender,
    ):
        return Peak(*contender())


def whole(setting: Setting, folder: str) -> Callable[[], tuple[int, int, int]]:
    """A contender that runs a study from start to end, with an eye on the process's own memory; answers
    the fields of `Peak`."""

    def run() -> tuple[int, int, int]:
        me = psutil.Process()
        free = free_memory() + me.memory_info().rss
        done = threading.Event()
        resident = own = 0

        def watch() -> None:
            nonlocal resident, own
            while not done.wait(0.005):
                now = me.memory_info()
                resident = max(resident, now.rss)
                own = max(own, now.rss - getattr(now, "shared", 0))  # Linux tells pages of files apart

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        advance = subjects.study(setting, "derived", folder, "phase")
        while advance() is not None:
            pass
        done.set()
        watcher.join()
        if me.children():
            raise RuntimeError("the run has processes of its own, whose memory nobody looked at")
        return resident, own, free

    return run


def holding(size: int) -> Callable[[], int]:
    """A contender that holds so many bytes."""
    import numpy as np

    held = np.ones(size, dtype=np.uint8)
    return lambda: len(held)
