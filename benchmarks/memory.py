"""Memory, and time, against images: of caches against the limit that was given, of a whole run against
what was free, and how both grow.

A small network on many images, whose maps are large for what they take to compute, so that its caches
want more than there is. The limit is of caches: what they add is the peak over that of the same run
without any. Without a limit it is the whole process that counts, where another one leaves little free.
For growth a process for each size trains on noise, and time is divided by the work in MACs: 1 says that
nothing but the work has grown.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks import subjects
from benchmarks.contest import BARE, Result, against, contender, in_turns, together
from benchmarks.subjects import Setting
from offramp.meters.capacity import free_memory
from offramp.process import prepare
from offramp.study.run.events import Finished

MIB = 2**20
LEFT = 3 * 2**30  # bytes that are free beside the process that holds memory
SUPERLINEAR = 1.25  # of images: what grows faster than they do would show as 50, 7 or at least ln 50
SETTING = Setting(
    "digits-cnn",
    images=50_000,
    epochs=2,  # so that frozen values are read again
    strategies=("branch-wise", "two-stage"),
    data=subjects.NOISE,  # reading files would take memory too, at its own time
    execution={"loader": "resident"},
)
GROWING = replace(SETTING, strategies=("joint", "two-stage"), learning_rate=1e-3, shape=(3, 16, 16))


@dataclass(frozen=True)
class Ran:
    """seconds: of phases.  In bytes: resident: the most that lay in memory; own: without pages of files,
    which the system can take back.  free: when the run began, what its process held then included."""

    seconds: float
    resident: int
    own: int
    free: int


def measure(quick: bool) -> Iterator[Result]:
    setting, limit = (replace(SETTING, images=6_000), 64 * MIB) if quick else (SETTING, 256 * MIB)
    needed = max(work.cache_bytes for work in subjects.plan(setting).work.values())
    run = f"{setting.backbone}, {', '.join(setting.strategies)}, {setting.images:,} {setting.data}"
    none, capped = once(setting, cache=False), once(setting, cache_memory=limit)
    # Held to the limit is what only this process can give back.
    for name, bar, kind in (("peak", 1.0, "own"), ("peak, pages of files included,", None, "resident")):
        with_caches, without = getattr(capped, kind), getattr(none, kind)
        yield Result(
            f"memory: what caches add to the {name} / their limit",
            (with_caches - without) / limit,
            bar,
            note=f"limit {limit / MIB:,.0f} MiB, a phase wants {needed / MIB:,.0f}, the rest in files; "
            f"{with_caches / MIB:,.0f} MiB against {without / MIB:,.0f} without caches; {run}",
        )
    ballast = 0 if quick else max(0, free_memory() - LEFT)
    with contender(holding, size=ballast) if ballast else nullcontext():
        free_run = once(setting)
    beside = " beside a process that holds the rest" if ballast else ""
    yield Result(
        "memory: peak of a run without a limit / what was free",
        free_run.resident / free_run.free,
        0.6,
        note=f"{free_run.resident / MIB:,.0f} MiB of {free_run.free / MIB:,.0f} free{beside}; a phase "
        f"wants caches of {needed / MIB:,.0f}; {run}",
    )
    yield from growth(1_000, 5_000 if quick else 50_000, 1 if quick else 3)


def growth(least: int, most: int, rounds: int) -> Iterator[Result]:
    """Time for the same work, and memory, of the most images against the least."""
    sizes = {images: replace(GROWING, images=images) for images in (least, most)}
    with together({n: contender(whole, BARE, setting=s) for n, s in sizes.items()}) as ways:
        in_turns(ways, 1)  # kernels are chosen and memory is there
        turns: dict[int, list[Ran]] = in_turns(ways, rounds)
    work = {images: subjects.plan(setting).executed for images, setting in sizes.items()}
    costs = {images: [ran.seconds / work[images] for ran in turns[images]] for images in sizes}
    note = f"{GROWING.backbone}, {GROWING.shape[-1]} px, {' and '.join(GROWING.strategies)}; "
    note += f"{median(ran.seconds for ran in turns[most]):.1f} s at {most}"
    name = f"scale: time for the same work, {most} images against {least}"
    yield against(name, costs[most], costs[least], bar=SUPERLINEAR, note=note)
    peaks = {images: max(ran.resident for ran in runs) for images, runs in turns.items()}
    own = 3 * GROWING.shape[-1] ** 2
    each = ", ".join(f"{images}: {peak / MIB:.0f} MiB" for images, peak in peaks.items())
    added = (peaks[most] - peaks[least]) / (most - least) / own
    name = "scale: memory of an added image against its own bytes"
    yield Result(name, added, note=f"of {own} bytes; {each}")


def once(setting: Setting, **execution: Any) -> Ran:
    """A run in a process of its own. execution: further settings."""
    setting = replace(setting, execution={**setting.execution, **execution})
    with contender(whole, BARE, setting=setting) as run:
        return run()


def whole(setting: Setting) -> Callable[[], Ran]:
    """A contender that runs a study from start to end, with an eye on the process's own memory."""
    prepare()

    def run() -> Ran:
        me = psutil.Process()
        free = free_memory() + me.memory_info().rss
        done = threading.Event()
        seconds, resident, own = 0.0, 0, 0

        def watch() -> None:
            nonlocal resident, own
            while not done.wait(0.005):
                now = me.memory_info()
                resident = max(resident, now.rss)
                own = max(own, now.rss - getattr(now, "shared", 0))  # Linux tells pages of files apart

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        with tempfile.TemporaryDirectory(prefix="offramp-memory-") as folder:
            for event in subjects.events(subjects.plan(setting), Path(folder)):
                seconds += event.seconds if isinstance(event, Finished) else 0.0
        done.set()
        watcher.join()
        if me.children():
            raise RuntimeError("the run has processes of its own, whose memory nobody looked at")
        return Ran(seconds, resident, own, free)

    return run


def holding(size: int) -> Callable[[], int]:
    """A contender that holds so many bytes."""
    import numpy as np

    ballast = np.ones(size, dtype=np.uint8)
    return lambda: len(ballast)
