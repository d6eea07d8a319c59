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
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contest import BARE, Result, against, contender, in_turns
from benchmarks.subjects import NOISE, Setting, events, plan
from offramp.process import keep_freed_memory

Ask = Callable[..., Any]
HALF = "cpu-one-thread"  # of the two that the default profile has
TRIAL = Setting("", 0, 1, strategies=("joint",), data=NOISE, learning_rate=0.01)
CASES = {
    "digits-cnn": replace(TRIAL, backbone="digits-cnn", images=1200, epochs=20, shape=(1, 8, 8)),
    "mobilenetv2 32 px": replace(TRIAL, backbone="mobilenetv2", images=512),
    "resnet18 32 px": replace(TRIAL, backbone="resnet18", images=256),
}
"""Of such sizes that a trial takes a second, or less."""


def measure(quick: bool) -> Iterator[Result]:
    """Time of two trials at once over that of one after another; no bar: it is to choose by."""
    rounds = 2 if quick else 3
    with (
        ThreadPoolExecutor(2) as hands,
        contender(trial, BARE, numerics="default") as alone,
        contender(trial, BARE, numerics=HALF) as first,
        contender(trial, BARE, numerics=HALF) as second,
    ):
        ways = {
            "in order": partial(two_trials, hands, [alone]),
            "at once": partial(two_trials, hands, [first, second]),
        }
        for title, case in CASES.items():
            case = replace(case, images=case.images // 2) if quick else case
            in_turns(ways, 1, case)  # warm
            times = in_turns(ways, rounds, case)
            note = f"best {min(times['at once']):.2f} / {min(times['in order']):.2f} s for two trials, "
            note += f"{rounds} turns; below 1: both at once are faster"
            name = f"workers: {title}, two at once, half the threads"
            yield against(name, times["at once"], times["in order"], note=note)


def two_trials(hands: ThreadPoolExecutor, processes: Sequence[Ask], case: Setting) -> float:
    """Seconds until both are done."""
    shares = [(1, 2)[i :: len(processes)] for i in range(len(processes))]
    began = time.perf_counter()
    list(hands.map(partial(_in_order, case), processes, shares))
    return time.perf_counter() - began


def _in_order(case: Setting, process: Ask, seeds: Sequence[int]) -> None:
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
