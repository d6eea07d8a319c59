"""Two trials on the cores of one: one after another, or both at once with fewer threads each.

A trial is a joint training with everything that a run does around it (validation, answers, the store).
Three ways of having two of them, each in processes of its own, in turns:

- one process that has all threads of a trial, a trial after the other, as `--workers 1` does;
- two processes at once, each with half the threads, OpenMP's waiting threads asleep;
- two processes at once, each with all the threads, as `--workers 2` does on too few cores: waiting
  threads asleep, and spinning for a bounded while.

Threads are part of a trial's numerics, so the second way needs another profile and gives other bits.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.runs import AS_COMMAND
from benchmarks.side import Contender, Result, in_turns, machine, ratio

ROUNDS, QUICK_ROUNDS = 3, 2
ASLEEP: Mapping[str, str | None] = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": None}


@dataclass(frozen=True)
class Case:
    """images, epochs: of training, such that a trial takes a second, or less."""

    backbone: str
    images: int
    epochs: int = 1

    @property
    def name(self) -> str:
        return self.backbone if self.backbone == "digits-cnn" else f"{self.backbone} 32 px"


CASES = (Case("digits-cnn", 1200, 20), Case("mobilenetv2", 512), Case("resnet18", 256))


@dataclass(frozen=True)
class Way:
    """So many processes with a share of a trial's threads each."""

    processes: int
    halved: bool
    environment: Mapping[str, str | None]


ONE = "one after another"
WAYS = {
    ONE: Way(1, False, AS_COMMAND),
    "two at once, half the threads": Way(2, True, ASLEEP),
    "two at once, all threads, asleep": Way(2, False, ASLEEP),
    "two at once, all threads, bounded spin": Way(2, False, AS_COMMAND),
}


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Result]:
    """Time of two trials, by way, over that of one after another; no bar: it is to choose by."""
    ways = dict(list(WAYS.items())[:3]) if quick else WAYS
    cases = [replace(case, images=case.images // 2) for case in CASES] if quick else CASES
    yield from compare(cases, ways, QUICK_ROUNDS if quick else ROUNDS, say)


def compare(
    cases: Sequence[Case], ways: Mapping[str, Way], rounds: int, say: Callable[[str], None]
) -> Iterator[Result]:
    with ExitStack() as stack:
        staff = {
            name: [
                stack.enter_context(Contender(trial, way.environment, halved=way.halved))
                for _ in range(way.processes)
            ]
            for name, way in ways.items()
        }
        hands = stack.enter_context(ThreadPoolExecutor(2))
        for case in cases:
            asks = {name: partial(two_trials, hands, staff[name], case) for name in ways}
            for ask in asks.values():
                ask()  # warm
            turns = in_turns(asks, rounds)
            where = machine()
            say(f"  {case.name}: " + ", ".join(f"{k} {min(v):.2f} s" for k, v in turns.items()))
            for name in [name for name in ways if name != ONE]:
                value, spread = ratio(turns[name], turns[ONE])
                note = (
                    f"best {min(turns[name]):.2f} / {min(turns[ONE]):.2f} s for two trials, {rounds} "
                    "turns; below 1: both at once are faster"
                )
                title = f"workers: {case.name}, {name}"
                yield Result(title, value, None, "lower", spread, where, note)


def two_trials(hands: ThreadPoolExecutor, processes: Sequence[Contender], case: Case) -> float:
    """Seconds until both are done."""
    seeds = (1, 2)
    shares = [seeds[i :: len(processes)] for i in range(len(processes))]
    began = time.perf_counter()
    for _ in hands.map(partial(_in_order, case), processes, shares):
        pass
    return time.perf_counter() - began


def _in_order(case: Case, process: Contender, seeds: Sequence[int]) -> None:
    for seed in seeds:
        process(case, seed)


def trial(halved: bool) -> Callable[[Case, int], None]:
    """For a contender: trains a trial of a case and a seed, and keeps it in a store of its own."""
    from offramp.allocator import keep_freed_memory

    keep_freed_memory()
    plans: dict[tuple[Case, int], Any] = {}

    def run_one(case: Case, seed: int) -> None:
        import torch

        from offramp.store.store import Store
        from offramp.study.run.events import Failed
        from offramp.study.run.run import Conduct, run

        if (case, seed) not in plans:
            plans[case, seed] = _plan(case, seed, halved)
        with tempfile.TemporaryDirectory(prefix="offramp-bench-") as folder:
            conduct = Conduct(torch.device("cpu"), Path(folder) / "caches", checkpoint_seconds=1e9)
            for event in run(plans[case, seed], Store(Path(folder) / "store"), conduct):
                if isinstance(event, Failed):
                    raise RuntimeError(event.reason)

    return run_one


def _plan(case: Case, seed: int, halved: bool) -> Any:
    """A joint trial on made images of the case's size, as learnable as noise is."""
    import torch

    from offramp.data import from_dataset
    from offramp.nets import NetSpec, build
    from offramp.numerics import profile
    from offramp.study.plan.plan import plan_trials
    from offramp.study.spec import models as spec

    shape = (1, 8, 8) if case.backbone == "digits-cnn" else (3, 32, 32)
    made = torch.Generator().manual_seed(0)

    def split(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=made)
        return pixels, torch.arange(count) % 10

    few = max(20, case.images // 10)
    data = from_dataset(split(case.images), split(few), split(few), split(few))
    study = spec.parse(
        {
            "seeds": [seed],
            "strategies": ["joint"],
            "backbone": case.backbone,
            "data": "given",
            "recipe": {
                "epochs": case.epochs,
                "batch_size": min(128, case.images),
                "learning_rate": 0.01,
            },
        }
    )
    net = build(NetSpec(case.backbone), shape, 10, seed)
    numerics = profile("default", "cpu")
    threads = max(1, numerics.threads // 2) if halved else numerics.threads
    return plan_trials(study, data, net, replace(numerics, threads=threads))
