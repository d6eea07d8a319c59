"""What PyTorch's fused optimizer is worth in a joint step of the engine: with it over without it.

Both train in one process, an epoch of a few steps in turns, so that they share its memory, kernels and
threads: in processes of their own (part `ablation`) the luck of one process counts for every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from benchmarks.contest import BARE, Result, against, contender
from benchmarks.step import CASES, way
from benchmarks.step_by_hand import Case

OPTIMIZERS = ("sgd", "adamw")


def measure(quick: bool) -> Iterator[Result]:
    rounds = 6 if quick else 16
    for case in (replace(c, optimizer=name) for c in CASES for name in OPTIMIZERS):
        with contender(pair, BARE, case=case) as ask:
            ask(True), ask(False)  # kernels are chosen and memory is there
            times: dict[bool, list[float]] = {True: [], False: []}
            for turn in range(rounds):
                for fused in (True, False) if turn % 2 else (False, True):
                    times[fused].append(ask(fused))
        best = " / ".join(f"{1000 * min(times[fused]):.0f} ms" for fused in (True, False))
        note = f"best {best}; batch {case.batch}, {case.steps} steps a turn, {rounds} turns, one process"
        name = f"fused optimizer: {case.name}, {case.optimizer}, with / without"
        yield against(name, times[True], times[False], note=note)


def pair(case: Case) -> Callable[[bool], float]:
    """For a contender: seconds of a step of the engine, fused or not."""
    ways = {fused: way("engine", (("fused_optimizer", fused),)) for fused in (True, False)}
    return lambda fused: ways[fused](case).seconds
