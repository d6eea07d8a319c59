"""Two trials on the cores of one: one after another, or both at once with fewer threads each.

A trial is a joint training with everything that a run does around it (validation, answers, the store).
Either one process with all threads of a trial trains them one after the other, as `--workers 1` does,
or two at once with one thread each. Threads are part of a trial's numerics, so that needs another
profile and gives other bits.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.contest import (
    AS_COMMAND,
    BARE,
    Contender,
    Environment,
    Result,
    Say,
    against,
    in_turns,
    said,
)
from benchmarks.subjects import MADE, ROOT, Setting, events, plan
from offramp.process import keep_freed_memory

ASLEEP: Environment = {**BARE, "OMP_WAIT_POLICY": "passive"}
HALF = str(ROOT / "studies" / "one-thread.json")  # of the two that the default profile has
ONE = "one after another"
WAYS: dict[str, tuple[int, str, Environment]] = {
    ONE: (1, "default", AS_COMMAND),
    "two at once, half the threads": (2, HALF, ASLEEP),
}
"""Processes, profile and environment of each way."""
TRIAL = Setting("", 0, 1, strategies=("joint",), data=MADE, learning_rate=0.01)
CASES = {
    "digits-cnn": replace(TRIAL, backbone="digits-cnn", images=1200, epochs=20, shape=(1, 8, 8)),
    "mobilenetv2 32 px": replace(TRIAL, backbone="mobilenetv2", images=512),
    "resnet18 32 px": replace(TRIAL, backbone="resnet18", images=256),
}
"""Of such sizes that a trial takes a second, or less."""


def measure(quick: bool, say: Say) -> Iterator[Result]:
    """Time of two trials, by way, over that of one after another; no bar: it is to choose by."""
    cases = {name: replace(c, images=c.images // 2) if quick else c for name, c in CASES.items()}
    yield from compare(cases, 2 if quick else 3, say)


def compare(cases: dict[str, Setting], rounds: int, say: Say) -> Iterator[Result]:
    with ExitStack() as stack:
        staff = {
            name: [
                stack.enter_context(Contender(trial, environment, numerics=numerics))
                for _ in range(processes)
            ]
            for name, (processes, numerics, environment) in WAYS.items()
        }
        hands = stack.enter_context(ThreadPoolExecutor(2))
        for title, case in cases.items():
            asked = {name: partial(two_trials, hands, some, case) for name, some in staff.items()}
            in_turns(asked, 1)  # warm
            times = in_turns(asked, rounds)
            say(f"  {title}: {said(times, digits=2)} s")
            for name in [name for name in times if name != ONE]:
                note = (
                    f"best {min(times[name]):.2f} / {min(times[ONE]):.2f} s for two trials, {rounds} "
                    "turns; below 1: both at once are faster"
                )
                yield against(f"workers: {title}, {name}", times[name], times[ONE], note=note)


def two_trials(hands: ThreadPoolExecutor, processes: Sequence[Contender], case: Setting) -> float:
    """Seconds until both are done."""
    shares = [(1, 2)[i :: len(processes)] for i in range(len(processes))]
    began = time.perf_counter()
    for _ in hands.map(partial(_in_order, case), processes, shares):
        pass
    return time.perf_counter() - began


def _in_order(case: Setting, process: Contender, seeds: Sequence[int]) -> None:
    for seed in seeds:
        process(replace(case, seeds=(seed,)))


def trial(numerics: str) -> Callable[[Setting], None]:
    """For a contender: trains a trial, and keeps it in a store of its own."""
    keep_freed_memory()

    def run(setting: Setting) -> None:
        with tempfile.TemporaryDirectory(prefix="offramp-bench-") as folder:
            for _ in events(plan(replace(setting, numerics=numerics)), Path(folder)):
                pass

    return run
