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
from dataclasses import replace
from typing import Any

import psutil

from benchmarks import runs
from benchmarks.runs import Setting
from benchmarks.side import Contender, Result, machine
from offramp.meters import free_memory

MIB = 2**20
LIMIT = 256 * MIB  # of caches in memory
LEFT = 3 * 2**30  # bytes that are free beside the process that holds memory
SHARE = 0.6  # of free memory, without a limit
SETTING = Setting(
    "digits-cnn", 50_000, 2, strategies=("branch-wise", "two-stage"), execution={"loader": "resident"}
)


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Result]:
    images, limit = (10_000, LIMIT // 4) if quick else (SETTING.images, LIMIT)
    setting = replace(SETTING, images=images)
    wanted = max(work.cache_bytes for work in runs.plan(setting, "derived").work.values())
    none = peak(replace(setting, execution={**setting.execution, "cache": False}))
    say(f"  without caches {none['peak'] / MIB:,.0f} MiB; they want {wanted / MIB:,.0f} MiB")
    yield limited(setting, none["peak"], wanted, limit)
    yield unlimited(setting, wanted, None if quick else LEFT)


def limited(setting: Setting, without: float, wanted: float, limit: int) -> Result:
    found = peak(replace(setting, execution={**setting.execution, "cache_memory": limit}))
    added = (found["peak"] - without) / limit
    return Result(
        "memory: what caches add to the peak / their limit",
        added,
        1.0,
        "lower",
        (added, added),
        machine(),
        f"limit {limit / MIB:,.0f} MiB, wanted {wanted / MIB:,.0f}; peak {found['peak'] / MIB:,.0f} MiB "
        f"against {without / MIB:,.0f} without caches; {_run(setting)}",
    )


def unlimited(setting: Setting, wanted: float, left: int | None) -> Result:
    """left: bytes that another process leaves free; None: all that is."""
    free = free_memory()
    with ExitStack() as stack:
        if left is not None and free > left:
            stack.enter_context(Contender(holding, size=free - left))
        found = peak(setting)
    share = found["peak"] / found["free"]
    return Result(
        "memory: peak of a run without a limit / what was free",
        share,
        SHARE,
        "lower",
        (share, share),
        machine(),
        f"peak {found['peak'] / MIB:,.0f} MiB of {found['free'] / MIB:,.0f} free"
        + (" beside a process that holds the rest" if left is not None and free > left else "")
        + f"; caches want {wanted / MIB:,.0f}; {_run(setting)}",
    )


def peak(setting: Setting) -> dict[str, float]:
    """`peak` and `free`, in bytes, of a run in a process of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="offramp-memory-") as folder,
        Contender(whole, runs.BARE, setting=setting, folder=folder) as contender,
    ):
        found: dict[str, float] = contender()
        return found


def whole(setting: Setting, folder: str) -> Callable[[], dict[str, float]]:
    """A contender that runs a study from start to end, with an eye on the process's own memory."""

    def run() -> dict[str, float]:
        me = psutil.Process()
        free = free_memory() + me.memory_info().rss
        done = threading.Event()
        highest = 0

        def watch() -> None:
            nonlocal highest
            while not done.wait(0.005):
                highest = max(highest, me.memory_info().rss)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        advance = runs.study(setting, "derived", folder, "phase")
        while advance() is not None:
            pass
        done.set()
        watcher.join()
        if me.children():
            raise RuntimeError("the run has processes of its own, whose memory nobody looked at")
        return {"peak": highest, "free": free}

    return run


def holding(size: int) -> Callable[[], Any]:
    """A contender that holds so many bytes."""
    import numpy as np

    held = np.ones(size, dtype=np.uint8)
    return lambda: len(held)


def _run(setting: Setting) -> str:
    return (
        f"{setting.backbone}, {', '.join(setting.strategies)}, {setting.images:,} images "
        f"({runs.pictures(setting)})"
    )
