"""How time and memory grow with images, and time with the trials of a store.

Joint and two-stage train on noise, a process for each size, so that its peak memory is its own. Time is
divided by the work in MACs: 1 says that nothing but the work has grown.

Trials are those of a store that was made without training (made_store.py), asked by commands.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch

from benchmarks.contest import AS_COMMAND, Contender, Result, Say, against, in_turns
from benchmarks.made_store import make_store
from benchmarks.start import STUDY
from benchmarks.start import seconds as process_seconds
from benchmarks.subjects import MADE, Setting, plan, trained
from offramp import device as devices
from offramp.process import keep_freed_memory

STRATEGIES = 9  # of the demo's study
SUPERLINEAR = 1.25  # of images: what grows faster than they do would show as 50, 7 or at least ln 50
A_FEW_SECONDS = 5.0  # of a command that plans, of which torch and the data take most at any size
QUICK_SECONDS = 3.0  # of one that only looks
STATUS = Path("/proc/self/status")
USUAL = Setting(  # two epochs, so that frozen values are read again
    "digits-cnn",
    5_000,
    2,
    (1,),
    ("joint", "two-stage"),
    learning_rate=1e-3,
    data=MADE,
    shape=(3, 16, 16),
)


@dataclass(frozen=True)
class Answer:
    """seconds: of training.  work: in MACs, as executed.  peak: bytes, the most that the process ever
    held; of a GPU's memory, what torch held there."""

    seconds: float
    work: int
    peak: int


def measure(quick: bool, say: Say) -> Iterator[Result]:
    counts = (1_000, 2_000, 5_000) if quick else (1_000, 10_000, 25_000, 50_000)
    yield from growth([replace(USUAL, images=n) for n in counts], 1 if quick else 3, say)
    yield from trials((1, 22) if quick else (1, 11, 112), 1 if quick else 3, say)


def growth(sizes: Sequence[Setting], rounds: int, say: Say) -> Iterator[Result]:
    """Time for the same work, and memory, at each size against the first."""
    with ExitStack() as stack:
        asked = {s.images: stack.enter_context(Contender(make, AS_COMMAND, setting=s)) for s in sizes}
        turns = in_turns(asked, rounds)
    least, most = min(turns), max(turns)
    costs = {n: [a.seconds / a.work for a in answers] for n, answers in turns.items()}
    peaks = {n: max(a.peak for a in answers) for n, answers in turns.items()}
    each = ", ".join(f"{n} {median(c) / median(costs[least]):.2f}" for n, c in costs.items())
    note = f"{USUAL.backbone}, {USUAL.shape[-1]} px, {' and '.join(USUAL.strategies)}; {each}; "
    note += f"{median(a.seconds for a in turns[most]):.1f} s at {most}"
    say(f"  {note}")
    name = f"scale: time for the same work, {most} images against {least}"
    yield against(name, costs[most], costs[least], bar=SUPERLINEAR, note=note)
    own = 3 * USUAL.shape[-1] ** 2
    each = ", ".join(f"{n}: {peak / 2**20:.0f} MiB" for n, peak in peaks.items())
    added = (peaks[most] - peaks[least]) / (most - least) / own
    name = "scale: memory of an added image against its own bytes"
    yield Result(name, added, note=f"of {own} bytes; {each}")


def make(setting: Setting) -> Callable[[], Answer]:
    """A run of joint and two-stage with caches, into a new store each time."""
    keep_freed_memory()

    def answer() -> Answer:
        made = plan(setting)
        return Answer(trained(made, answers=True), made.executed, peak(devices.chosen()))

    answer()  # kernels are chosen and memory is there
    return answer


def peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():  # Linux's ru_maxrss begins with what the process that started this one held
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def trials(seeds: Sequence[int], rounds: int, say: Say) -> Iterator[Result]:
    """Seconds of commands at the most trials, each a process."""
    found: dict[int, dict[str, list[float]]] = {}
    bars: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in seeds:
            setting = f"seeds={list(range(1, count + 1))}"
            root = Path(folder) / str(count)
            began = time.perf_counter()
            make_store(root, STUDY, (setting,))
            say(f"  a store of {count * STRATEGIES} trials, made in {time.perf_counter() - began:.0f} s")
            study, table = (str(STUDY), "--set", setting), str(root.with_suffix(".parquet"))
            commands: dict[str, tuple[tuple[str, ...], float | None]] = {
                "status": (("status",), QUICK_SECONDS),
                "compare": (("compare", "joint", "two-stage"), QUICK_SECONDS),
                "run --dry-run": (("run", *study, "--dry-run"), A_FEW_SECONDS),
                "run, all of it there": (("run", *study), None),
                "export-table": (("export-table", "--out", table), A_FEW_SECONDS),
            }
            asked = {
                name: partial(process_seconds, ("-m", "offramp", *words, "--store", str(root)))
                for name, (words, _) in commands.items()
            }
            found[count * STRATEGIES] = in_turns(asked, rounds)
            bars = {name: bar for name, (_, bar) in commands.items()}
    most = max(found)
    for name, bar in bars.items():
        each = ", ".join(f"{n}: {median(times[name]):.1f} s" for n, times in found.items())
        times, label = found[most][name], f"scale: offramp {name} at {most} trials, seconds"
        spread = (min(times), max(times))
        yield Result(label, median(times), bar, spread=spread, note=f"trials: {each}")
