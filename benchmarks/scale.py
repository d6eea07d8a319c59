"""How time and memory grow with images, exits, classes, and with the trials of a store.

The first three train joint and two-stage on noise, a process for each size, so that its peak memory is
its own. What an image takes is divided by the work that it is, in MACs, since more exits and classes are
more work: 1 says that nothing but the work has grown.

Trials are those of a store that was made without training (`made_store`), asked by commands.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.made_store import make_store
from benchmarks.phases import trained
from benchmarks.runs import AS_COMMAND
from benchmarks.side import Contender, Result, in_turns, machine, ratio
from benchmarks.start import seconds as process_seconds
from offramp import device as devices
from offramp.allocator import keep_freed_memory
from offramp.data import from_dataset
from offramp.study.plan.plan import make_plan
from offramp.study.spec import models as spec

STUDY = Path(__file__).parent.parent / "studies" / "demo.yaml"
STRATEGIES = 9  # of that study
SEEDS = (1, 11, 112)  # 9, 99 and 1,008 trials
QUICK_SEEDS = (1, 22)  # 9 and 198
BATCH, EPOCHS = 128, 2  # two epochs, so that frozen values are read again
SUPERLINEAR_BAR = 1.25  # of images: what grows faster than they do would show as 50, 7 or at least ln 50
A_FEW_SECONDS = 5.0  # of a command that plans, of which torch and the data take most at any size
QUICK_SECONDS = 3.0  # of one that only looks
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Size:
    """images: of training, before anything is held out.  exits: early ones.  classes: of the data."""

    images: int = 5_000
    exits: int = 3
    classes: int = 10
    backbone: str = "digits-cnn"
    pixels: int = 16


SIZES: Mapping[str, Sequence[Size]] = {
    "images": tuple(Size(images=n) for n in (1_000, 10_000, 25_000, 50_000)),
    # digits-cnn has no places for eight
    "exits": tuple(Size(1_000, exits=n, backbone="mobilenetv1", pixels=32) for n in (1, 2, 4, 8)),
    "classes": tuple(Size(classes=n) for n in (10, 100, 1_000)),
}
QUICK: Mapping[str, Sequence[Size]] = {
    "images": tuple(Size(images=n) for n in (1_000, 2_000, 5_000)),
    "exits": tuple(replace(SIZES["exits"][at], images=300) for at in (0, 3)),
    # Of 1,000 classes four images each, so that one can be held out of each.
    "classes": tuple(replace(SIZES["classes"][at], images=4_000) for at in (0, 2)),
}


@dataclass(frozen=True)
class Answer:
    """seconds: of training.  work: in MACs, as executed.  whole: seconds with plan and logits.
    peak: bytes, the most that the process ever held; of a GPU's memory, what torch held there."""

    seconds: float
    work: int
    whole: float
    peak: int


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Result]:
    for what, sizes in (QUICK if quick else SIZES).items():
        yield from growth(what, sizes, 1 if quick else 3, say)
    yield from trials(QUICK_SEEDS if quick else SEEDS, 1 if quick else 3, say)


def growth(
    what: str, sizes: Sequence[Size], rounds: int, say: Callable[[str], None]
) -> Iterator[Result]:
    """Time for the same work, and memory, at each size against the first."""
    here = machine()
    with ExitStack() as stack:
        asked = {size: stack.enter_context(Contender(make, AS_COMMAND, size=size)) for size in sizes}
        turns = in_turns({str(getattr(size, what)): ask for size, ask in asked.items()}, rounds)
    for size, (name, answers) in zip(sizes, turns.items(), strict=True):
        say(f"  {name} {what}: {_said(size, answers)}")
    least, *_, most = turns
    costs = {name: [a.seconds / a.work for a in answers] for name, answers in turns.items()}
    value, spread = ratio(costs[most], costs[least])
    bar = SUPERLINEAR_BAR if what == "images" else None
    each = ", ".join(
        f"{name} {statistics.median(c) / statistics.median(costs[least]):.2f}"
        for name, c in costs.items()
    )
    seconds = f"{statistics.median(a.seconds for a in turns[most]):.1f} s at {most}"
    note = f"{sizes[0].backbone}, {sizes[0].pixels} px, joint and two-stage; {each}; {seconds}"
    name = f"scale: time for the same work, {most} {what} against {least}"
    yield Result(name, value, bar, "lower", spread, here, note)
    yield _memory(
        what, sizes, {name: max(a.peak for a in answers) for name, answers in turns.items()}, here
    )


def _said(size: Size, answers: Sequence[Answer]) -> str:
    took = statistics.median(a.seconds for a in answers)
    peak = max(a.peak for a in answers) / 2**20
    whole = statistics.median(a.whole for a in answers)
    return f"{1e6 * took / size.images:.0f} µs an image, {whole:.1f} s in all, {peak:.0f} MiB at most"


def _memory(what: str, sizes: Sequence[Size], peaks: Mapping[str, int], here: str) -> Result:
    """Of images the bytes that an added one takes against its own; else peak against peak."""
    (least, low), *_, (most, high) = peaks.items()
    each = ", ".join(f"{name}: {peak / 2**20:.0f} MiB" for name, peak in peaks.items())
    if what == "images":
        own = 3 * sizes[0].pixels ** 2
        value = (high - low) / (sizes[-1].images - sizes[0].images) / own
        name, note = "scale: memory of an added image against its own bytes", f"of {own} bytes; {each}"
    else:
        value = high / low
        name, note = f"scale: peak memory, {most} {what} against {least}", each
    return Result(name, value, None, "lower", (value, value), here, note)


def make(size: Size) -> Callable[[], Answer]:
    """A run of joint and two-stage with caches, into a new store each time."""
    keep_freed_memory()
    device = devices.chosen()
    generator = torch.Generator().manual_seed(1)
    shape = (size.images, 3, size.pixels, size.pixels)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.arange(size.images) % size.classes
    data = from_dataset((pixels, labels), test=(pixels[-1_000:], labels[-1_000:]))
    study = spec.parse(
        {
            "seeds": [1],
            "strategies": ["joint", "two-stage"],
            "backbone": size.backbone,
            "exits": {"taps": size.exits},
            "data": "noise",
            "recipe": {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 1e-3},
        }
    )

    def answer() -> Answer:
        began = time.perf_counter()
        plan = make_plan(study, device, data=data)
        spent = sum(trained(plan, answers=True).values())
        whole = time.perf_counter() - began
        return Answer(spent, plan.executed, whole, _peak(device))

    answer()  # kernels are chosen and memory is there
    return answer


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():  # Linux's ru_maxrss begins with what the process that started this one held
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def trials(seeds: Sequence[int], rounds: int, say: Callable[[str], None]) -> Iterator[Result]:
    """Seconds of commands at the most trials, each a process."""
    here = machine()
    found: dict[int, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in seeds:
            setting = f"seeds={list(range(1, count + 1))}"
            root = Path(folder) / str(count)
            began = time.perf_counter()
            make_store(root, STUDY, (setting,))
            say(f"  a store of {count * STRATEGIES} trials, made in {time.perf_counter() - began:.0f} s")
            asked = {
                name: partial(process_seconds, command)
                for name, (command, _) in _commands(root, setting).items()
            }
            found[count * STRATEGIES] = in_turns(asked, rounds)
        bars = {name: bar for name, (_, bar) in _commands(root, setting).items()}
    most = max(found)
    for name, bar in bars.items():
        each = ", ".join(f"{n}: {statistics.median(times[name]):.1f} s" for n, times in found.items())
        times = found[most][name]
        middle, spread = statistics.median(times), (min(times), max(times))
        label = f"scale: offramp {name} at {most} trials, seconds"
        yield Result(label, middle, bar, "lower", spread, here, f"trials: {each}")


def _commands(root: Path, setting: str) -> dict[str, tuple[tuple[str, ...], float | None]]:
    """What follows `python`, and the bar in seconds, by name."""
    offramp, of = ("-m", "offramp"), ("--store", str(root))
    study = (str(STUDY), "--set", setting, *of)
    return {
        "status": ((*offramp, "status", *of), QUICK_SECONDS),
        "compare": ((*offramp, "compare", "joint", "two-stage", *of), QUICK_SECONDS),
        "run --dry-run": ((*offramp, "run", *study, "--dry-run"), A_FEW_SECONDS),
        "run, all of it there": ((*offramp, "run", *study), None),
        "export-table": (
            (*offramp, "export-table", "--out", str(root.with_suffix(".parquet")), *of),
            A_FEW_SECONDS,
        ),
    }
