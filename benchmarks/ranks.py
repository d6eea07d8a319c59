"""One training on two ranks of one thread each, against one rank of two threads: the same two cores.

Both take the same batches of the same order. What two ranks add is two processes, a sum of all gradients
a step (through gloo, on the loopback interface) and two short sums for each batch normalization; what
they spare is threads that wait for each other within an operation. On GPUs it is another matter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contest import BARE, Result, against, contender, in_turns, together
from offramp import device as devices
from offramp.process import keep_freed_memory
from offramp.store.store import Store
from offramp.study.plan.plan import make_plan
from offramp.study.run.events import Epoch
from offramp.study.run.processes import run_pooled
from offramp.study.run.run import RunConfig
from offramp.study.spec import file as spec

HALF = "cpu-one-thread"
DATA = Path(__file__).with_name("ranks_data.py")
BACKBONES = ("digits-cnn", "mobilenetv2", "resnet18")
WAYS: dict[str, dict[str, Any]] = {
    "two ranks": {"execution": {"devices": 2}, "numerics": HALF},
    "one rank": {"execution": {}, "numerics": "default"},
}


def measure(quick: bool) -> Iterator[Result]:
    """Time of epochs of joint training; no bar: it is to know by."""
    rounds, epochs, steps = (1, 2, 1) if quick else (3, 3, 4)
    with together({name: contender(trainer, BARE, **how) for name, how in WAYS.items()}) as ways:
        for backbone in BACKBONES:
            times = in_turns(ways, rounds, backbone, epochs, steps)
            best = [1000 * min(times[name]) / (epochs - 1) / steps for name in WAYS]
            note = f"best {best[0]:.0f} / {best[1]:.0f} ms a step of batch 128, {rounds} turns; "
            note += "below 1: two ranks are faster"
            name = f"ranks: {backbone}, two of one thread against one of two"
            yield against(name, times["two ranks"], times["one rank"], note=note)


def trainer(execution: dict[str, int], numerics: str) -> Callable[[str, int, int], float]:
    """For a contender: `seconds`, trained this way."""
    keep_freed_memory()
    return partial(seconds, execution, numerics)


def seconds(execution: dict[str, int], numerics: str, backbone: str, epochs: int, steps: int) -> float:
    """Of all epochs but the first, in which everything is met for the first time."""
    side = 8 if backbone == "digits-cnn" else 32
    study = spec.parse(
        {
            "seeds": [42],
            "strategies": ["joint"],
            "backbone": backbone,
            "data": {"name": f"{DATA}:make_data", "images": 128 * steps, "side": side},
            "recipe": {"epochs": epochs, "learning_rate": 0.01},
            "execution": execution,
            "numerics": numerics,
        },
        "the benchmark's study",
    )
    with tempfile.TemporaryDirectory(prefix="offramp-bench-") as folder:
        device = devices.chosen("cpu")
        conduct = RunConfig(device, Path(folder) / "caches", checkpoint_seconds=1e9)
        events = run_pooled(make_plan(study, device), Store(Path(folder) / "store"), conduct)
        epochs = [event.report.seconds for event in events if isinstance(event, Epoch)]
    return sum(epochs[1:])
