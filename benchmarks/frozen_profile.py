"""Where an epoch of frozen phases goes, by kind of operation: python -m benchmarks.frozen_profile WORDS

WORDS name a case of frozen.py, by a part of its name ("branch-wise", "small stem, the paper's heads").
Each group of phases is looked at in its second epoch, validation included, once from caches and once
with every layer live (`execution: plain`), whose phases are never fused. Shares are of the time that
operations take themselves (ledger.py); to look at each costs some time between them. Zeros of padding
are no work.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.contest import machine, percent
from benchmarks.frozen import CASES
from benchmarks.frozen_task import Task, plan_of, write_pictures, write_trunk
from benchmarks.ledger import KINDS, Ledger, Operation
from benchmarks.subjects import epochs
from offramp import device as devices
from offramp.process import keep_freed_memory

MODES = {"derived": "from caches", "plain": "every layer live"}
Profiled = tuple[str, float, list[Operation]]
"""The second epoch of a group of phases: their names, seconds by the engine's clock, operations."""


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
        with tempfile.TemporaryDirectory(prefix="offramp-bench-") as folder:
            write_pictures(Path(folder), given.images, max(64, given.images // 20))  # as in frozen.py
            task = replace(found[0].task, folder=folder)
            if task.kept:
                write_trunk(task)
            print(f"\n{table(words, list(watched(task, Path(folder), mode)))}", flush=True)


def watched(task: Task, folder: Path, mode: str) -> Iterator[Profiled]:
    """Of a task whose files are there; folder: for the run's own."""
    plan = plan_of(task, 2, mode)
    trained = 0
    told = epochs(plan, folder)
    for first in told:
        assert first["epoch"] == 1
        with Ledger(devices.chosen()) as ledger:
            second = next(told)
        yield (
            " ".join(plan.nodes[key].name for key in first["keys"]),
            second["seconds"],
            ledger.operations,
        )
        trained += len(first["keys"])
        if trained == len(plan.nodes):
            return


def table(words: str, found: list[Profiled]) -> str:
    names, seconds, operations = map(list, zip(*found, strict=True))
    spent = {
        kind: _with_sum([sum(o.seconds for o in some if o.kind == kind) for some in operations])
        for kind in KINDS
    }
    whole = [sum(column) for column in zip(*spent.values(), strict=True)]
    rows = [
        [words, *names, "all"],
        ["---", *["--:"] * (len(names) + 1)],
        ["seconds of an epoch", *(f"{s:.2f}" for s in _with_sum(seconds))],
        ["of operations", *(f"{s:.2f}" for s in whole)],
    ]
    for kind, times in spent.items():
        rows.append([kind, *(percent(part / of) for part, of in zip(times, whole, strict=True))])
    dense = [o for some in operations for o in some if o.kind == KINDS[0]]
    speed = sum(o.flops for o in dense) / sum(o.seconds for o in dense) / 1e9
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", f"Dense convolutions: {speed:.0f} GFLOP/s."])


def _with_sum(values: list[float]) -> list[float]:
    return [*values, sum(values)]


if __name__ == "__main__":
    main()
