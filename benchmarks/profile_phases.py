"""Where an epoch of frozen phases goes, by kind of operation: python -m benchmarks.profile_phases WORDS

WORDS name a case of frozen.py, by a part of its name ("branch-wise", "small stem, the paper's heads").
Each group of phases is looked at in its second epoch by torch's profiler, validation included, once from
caches and once with every layer live (`execution: plain`), whose phases are never fused. Shares are of
the time that operations take themselves, as the processor sees it; the profiler itself costs some.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from benchmarks.frozen import CASES, Case
from benchmarks.frozen_task import Task, cifar10, plan_of, write_pictures, write_trunk
from benchmarks.side import machine
from offramp.allocator import keep_freed_memory
from offramp.study.events import Began, Epoch, Failed
from offramp.study.plan import default_device
from offramp.study.run import Conduct, run
from offramp.study.store import Store

MODES = {"derived": "from caches", "plain": "every layer live"}
KINDS = {  # parts of operations' names; the first that fits counts
    "convolutions, backward": ("convolution_backward",),
    "convolutions, forward": ("convolution", "conv_"),
    "BatchNorm": ("batch_norm",),
    "matrix products": ("mm",),
    "activations, pooling, sums": ("threshold", "clamp", "relu", "pool", "hardtanh", "aten::add"),
    "optimizer": ("_fused_", "Optimizer"),
    "gathering rows": ("index",),
    "copies": ("copy_", "fill_", "cat"),
}
OTHER = "the rest"


@dataclass(frozen=True)
class Profiled:
    """An epoch of a group of phases. seconds: as the engine's clock has it.  spent: by kind."""

    names: str
    seconds: float
    spent: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", metavar="WORDS")
    parser.add_argument("--images", type=int, default=2_560)
    given = parser.parse_args()
    found = [case for case in CASES if given.case in case.name and not case.accuracy]
    if len(found) != 1:
        names = "\n  ".join(case.name for case in found or CASES)
        parser.error(f"'{given.case}' names {len(found)} cases:\n  {names}")
    keep_freed_memory()
    print(f"{found[0].name}, {given.images:,} images; {machine()}", flush=True)
    for mode, words in MODES.items():
        epochs = list(profiled(found[0], given.images, mode))
        print(f"\n{table(words, epochs)}", flush=True)


def profiled(case: Case, images: int, mode: str) -> Iterator[Profiled]:
    """The second epoch of each group of phases."""
    with tempfile.TemporaryDirectory(prefix="offramp-bench-") as folder:
        write_pictures(Path(folder), cifar10(), images, max(64, images // 20))  # as in frozen.py
        task = replace(case.task, folder=folder)
        if task.kept:
            write_trunk(task)
        yield from watched(task, Path(folder), mode)


def watched(task: Task, folder: Path, mode: str) -> Iterator[Profiled]:
    """The same of a task whose files are there; folder: for the run's own."""
    plan = plan_of(task, 2, mode)
    names: dict[str, str] = {key: node.name for key, node in plan.nodes.items()}
    conduct = Conduct(default_device(), folder / "cache", checkpoint_seconds=math.inf)
    group: tuple[str, ...] = ()
    told: list[float] = []  # seconds of the epoch at hand, by phase of the group
    profiler = profile(activities=[ProfilerActivity.CPU])
    trained = 0
    with closing(run(plan, Store(folder / "store"), conduct)) as events:
        for event in events:
            if isinstance(event, Failed):
                raise RuntimeError(event.reason)
            if isinstance(event, Began):
                group = event.keys
            if not isinstance(event, Epoch):
                continue
            told.append(event.report.seconds)
            if event.report.epoch == 2 and len(told) == 1:
                profiler.stop()
            if len(told) < len(group):
                continue
            seconds, told = sum(told), []
            if event.report.epoch == 1:
                profiler = profile(activities=[ProfilerActivity.CPU])
                profiler.start()
                continue
            yield Profiled(" ".join(names[key] for key in group), seconds, by_kind(profiler))
            trained += len(group)
            if trained == len(plan.nodes):
                return


def by_kind(profiler: profile) -> dict[str, float]:
    """Seconds that operations took themselves."""
    spent = dict.fromkeys((*KINDS, OTHER), 0.0)
    for event in profiler.key_averages():
        fitting = (kind for kind, parts in KINDS.items() if any(part in event.key for part in parts))
        spent[next(fitting, OTHER)] += event.self_cpu_time_total / 1e6
    return spent


def table(words: str, epochs: list[Profiled]) -> str:
    lines = [f"| {words} | " + " | ".join(one.names for one in epochs) + " | all |"]
    lines.append("|---" + "|--:" * (len(epochs) + 1) + "|")
    seconds = [one.seconds for one in epochs]
    lines.append(_row("seconds of an epoch", [f"{s:.2f}" for s in (*seconds, sum(seconds))]))
    wholes = [sum(one.spent.values()) for one in epochs]
    lines.append(_row("of operations", [f"{s:.2f}" for s in (*wholes, sum(wholes))]))
    for kind in (*KINDS, OTHER):
        spent = [one.spent[kind] for one in epochs]
        shares = zip((*spent, sum(spent)), (*wholes, sum(wholes)), strict=True)
        lines.append(_row(kind, [f"{100 * part / whole:.0f} %" for part, whole in shares]))
    return "\n".join(lines)


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
