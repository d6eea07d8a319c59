"""What is trained: CIFAR-10 or noise, the plan of a study on it, and the plan's run."""

from __future__ import annotations

import gc
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from offramp import device as devices
from offramp.data import Data, from_dataset
from offramp.process import prepare
from offramp.store.store import Store
from offramp.strategies import STRATEGIES
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.run.events import Began, Epoch, Event, Failed, Finished
from offramp.study.run.run import Conduct, run
from offramp.study.spec import file as spec

ROOT = Path(__file__).parents[1]
Mode = Literal["derived", "plain"]
MADE = "made images of CIFAR-10's shape"

K, V = TypeVar("K"), TypeVar("V")


@dataclass(frozen=True)
class Setting:
    """A study to time. images: of the training set, of which some are held out.  data: a name, or MADE;
    None for CIFAR-10 where it is, else MADE.  shape: of made images.  execution: further settings of it.
    numerics: a profile."""

    backbone: str
    images: int
    epochs: int
    seeds: tuple[int, ...] = (42,)
    strategies: tuple[str, ...] = tuple(STRATEGIES)
    test_images: int = 1000
    batch_size: int = 128
    learning_rate: float = 0.05
    data: str | None = None
    shape: tuple[int, int, int] = (3, 32, 32)
    execution: Mapping[str, Any] = field(default_factory=dict)
    numerics: str = "default"


def cifar10() -> Path | None:
    """The folder of CIFAR-10's files: in $OFFRAMP_DATA, or in shared/data beside this repository."""
    given = os.environ.get("OFFRAMP_DATA")
    roots = [*([Path(given)] if given else []), ROOT.parent / "shared" / "data"]
    return next((r / "cifar10" for r in roots if any((r / "cifar10").glob("*"))), None)


def pictures(setting: Setting) -> str:
    """What the images are, for a note."""
    return setting.data or ("CIFAR-10" if cifar10() else f"{MADE} (it is not here)")


def plan(setting: Setting, mode: Mode = "derived") -> Plan:
    """The plan of a setting, its data read or made."""
    root = None if setting.data else cifar10()
    made = setting.data == MADE or (setting.data is None and root is None)
    data = {"name": setting.data or "cifar10", "train_images": setting.images}
    study = spec.parse(
        {
            "seeds": list(setting.seeds),
            "strategies": list(setting.strategies),
            "backbone": setting.backbone,
            "data": data | {"test_images": setting.test_images} | ({"root": str(root)} if root else {}),
            "recipe": {
                "epochs": setting.epochs,
                "batch_size": setting.batch_size,
                "learning_rate": setting.learning_rate,
            },
            "execution": {"mode": mode, **setting.execution},
            "numerics": setting.numerics,
        },
        "the benchmark's study",
    )
    return make_plan(study, data=made_data(setting) if made else None)


def made_data(setting: Setting) -> Data:
    """As many images of noise as the setting asks for."""
    splits = (noise(n, setting.shape) for n in (setting.images, setting.test_images))
    train, test = splits
    return from_dataset(train, test=test, name="made")


def noise(
    count: int, shape: tuple[int, ...] = (3, 32, 32), classes: int = 10, seed: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 images [count, C, H, W], brighter for higher classes, so that there is something to learn,
    and their labels."""
    labels = torch.arange(count) % classes
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 160, (count, *shape), generator=generator, dtype=torch.uint8)
    return pixels + (labels % 10 * 10).view(-1, 1, 1, 1).to(torch.uint8), labels


def events(plan: Plan, folder: Path, checkpoint_seconds: float = math.inf) -> Iterator[Event]:
    """Run a plan into the store `folder`/store. Raises RuntimeError where a phase fails."""
    conduct = Conduct(devices.chosen(), folder / "cache", checkpoint_seconds)
    with closing(run(plan, Store(folder / "store"), conduct)) as found:
        for event in found:
            if isinstance(event, Failed):
                raise RuntimeError(f"phase {plan.nodes[event.key].name} failed: {event.reason}")
            yield event


def trained(plan: Plan, answers: bool = False) -> float:
    """Seconds of all phases in a store that goes again, by the engine's own clock.

    answers: whether the finished networks' logits are made as well.
    """
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="offramp-bench-") as folder:
        for event in events(plan, Path(folder)):
            if isinstance(event, Finished):
                seconds[event.key] = event.seconds
            if len(seconds) == len(plan.nodes) and not answers:
                break
    return sum(seconds.values())


def study(setting: Setting, mode: Mode, folder: str, until: str) -> Callable[[], dict[str, Any] | None]:
    """A contender, in the environment AS_COMMAND, that runs a study as a command does. Each call goes on
    to the next finished phase (`until` = "phase") or to the next epoch of a group of phases
    ("epoch") and answers what it took; None once all is done. The clocks of the engine stand still
    between the calls."""
    prepare()
    made = plan(setting, mode)
    told = phases(made, Path(folder)) if until == "phase" else epochs(made, Path(folder))
    return lambda: next(told, None)


def phases(made: Plan, folder: Path) -> Iterator[dict[str, Any]]:
    for event in events(made, folder):
        if isinstance(event, Finished):
            node = made.nodes[event.key]
            spent = sum(Store(folder / "store").node_cost(event.key).seconds.values())
            yield {"seed": node.seed, "seconds": spent, "macs": made.macs(event.key)}


def epochs(made: Plan, folder: Path) -> Iterator[dict[str, Any]]:
    group: tuple[str, ...] = ()
    seconds: list[float] = []
    for event in events(made, folder):
        if isinstance(event, Began):
            group, seconds = event.keys, []
        if isinstance(event, Epoch):
            seconds.append(event.report.seconds)
            if len(seconds) == len(group):
                others = f" and {len(group) - 1} fused" if len(group) > 1 else ""
                name = f"{made.users[group[0]][0]}: {made.nodes[group[0]].name}{others}"
                yield {
                    "group": name,
                    "keys": group,
                    "epoch": event.report.epoch,
                    "seconds": sum(seconds),
                }
                seconds = []


def latest(make: Callable[[K], Iterator[V]]) -> Callable[[K], V]:
    """The next of what a case's iterator yields; another case ends the one before it."""
    current: tuple[K, Iterator[V]] | None = None

    def ask(case: K) -> V:
        nonlocal current
        if current is None or current[0] != case:
            current = None
            gc.collect()  # a network holds cycles, and the next one needs its memory
            current = case, make(case)
        return next(current[1])

    return ask
