"""Where an epoch of frozen phases goes, by kind of operation: python -m benchmarks.profile_phases WORDS

WORDS name a case of frozen.py, by a part of its name ("branch-wise", "small stem, the paper's heads").
Each group of phases is looked at in its second epoch, validation included, once from caches and once
with every layer live (`execution: plain`), whose phases are never fused. Shares are of the time that
operations take themselves (benchmarks/ledger.py); to look at each costs some time between them. Zeros of
padding are no work.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.frozen import CASES, Case
from benchmarks.frozen_task import Task, cifar10, plan_of, write_pictures, write_trunk
from benchmarks.ledger import Ledger, Operation
from benchmarks.side import machine
from offramp import device as devices
from offramp.allocator import keep_freed_memory
from offramp.store.store import Store
from offramp.study.run.events import Began, Epoch, Failed
from offramp.study.run.run import Conduct, run

MODES = {"derived": "from caches", "plain": "every layer live"}
KINDS = (
    "dense convolution",
    "depthwise convolution",
    "matrix product",
    "BatchNorm",
    "optimizer",
    "other",
)


@dataclass(frozen=True)
class Profiled:
    """An epoch of a group of phases. seconds: as the engine's clock has it."""

    names: str
    seconds: float
    operations: list[Operation]

    def spent(self, *kinds: str) -> float:
        """Seconds of operations of these kinds."""
        return sum(o.seconds for o in self.operations if o.kind in kinds)


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
    conduct = Conduct(devices.chosen(), folder / "cache", checkpoint_seconds=math.inf)
    group: tuple[str, ...] = ()
    told: list[float] = []  # seconds of the epoch at hand, by phase of the group
    trained = 0
    with closing(run(plan, Store(folder / "store"), conduct)) as events, ExitStack() as watching:
        for event in events:
            if isinstance(event, Failed):
                raise RuntimeError(event.reason)
            if isinstance(event, Began):
                group = event.keys
            if not isinstance(event, Epoch):
                continue
            told.append(event.report.seconds)
            if event.report.epoch == 2:
                watching.close()
            if len(told) < len(group):
                continue
            seconds, told = sum(told), []
            if event.report.epoch == 1:
                ledger = watching.enter_context(Ledger(conduct.device))
                continue
            yield Profiled(" ".join(names[key] for key in group), seconds, ledger.operations)
            trained += len(group)
            if trained == len(plan.nodes):
                return


def table(words: str, epochs: list[Profiled]) -> str:
    lines = [f"| {words} | " + " | ".join(one.names for one in epochs) + " | all |"]
    lines.append("|---" + "|--:" * (len(epochs) + 1) + "|")
    seconds = [one.seconds for one in epochs]
    lines.append(_row("seconds of an epoch", [f"{s:.2f}" for s in (*seconds, sum(seconds))]))
    lines.append(_row("of operations", [f"{s:.2f}" for s in _with_sum(epochs, *KINDS)]))
    for kind in KINDS:
        shares = zip(_with_sum(epochs, kind), _with_sum(epochs, *KINDS), strict=True)
        lines.append(_row(kind, [f"{100 * part / whole:.0f} %" for part, whole in shares]))
    dense = [o for one in epochs for o in one.operations if o.kind == KINDS[0]]
    speed = sum(o.flops for o in dense) / sum(o.seconds for o in dense) / 1e9
    return "\n".join([*lines, "", f"Dense convolutions: {speed:.0f} GFLOP/s."])


def _with_sum(epochs: list[Profiled], *kinds: str) -> list[float]:
    spent = [one.spent(*kinds) for one in epochs]
    return [*spent, sum(spent)]


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
