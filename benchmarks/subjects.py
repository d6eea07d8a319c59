"""What is trained: CIFAR-10 or noise, the plan of a study on it, and the plan's run."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from offramp import device as devices
from offramp.data import from_dataset
from offramp.store.store import Store
from offramp.strategies import STRATEGIES
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.run.events import Event, Failed, Finished
from offramp.study.run.run import RunConfig, run
from offramp.study.spec import file as spec

ROOT = Path(__file__).parents[1]
Mode = Literal["derived", "plain"]
NOISE = "made images of CIFAR-10's shape"


@dataclass(frozen=True)
class Setting:
    """A study to time.

    Attributes:
        images: Of the training set, of which some are held out.
        data: A name, or NOISE; None for CIFAR-10 where it is, else NOISE.
        shape: Of noise images.
        execution: Further settings of it.
        numerics: A profile.
    """

    backbone: str | Mapping[str, str]
    images: int
    epochs: int
    seeds: tuple[int, ...] = (42,)
    strategies: tuple[str, ...] = tuple(STRATEGIES)
    test_images: int = 1000
    learning_rate: float = 0.05
    data: str | None = None
    shape: tuple[int, int, int] = (3, 32, 32)
    execution: Mapping[str, Any] = field(default_factory=dict)
    numerics: str = "default"


def cifar10() -> Path | None:
    """The folder of CIFAR-10's files: in $OFFRAMP_DATA, or in shared/data beside this repository."""
    folder = os.environ.get("OFFRAMP_DATA")
    roots = [*([Path(folder)] if folder else []), ROOT.parent / "shared" / "data"]
    return next((r / "cifar10" for r in roots if any((r / "cifar10").glob("*"))), None)


def pictures(setting: Setting) -> str:
    """What the images are, for a note."""
    return setting.data or ("CIFAR-10" if cifar10() else f"{NOISE} (it is not here)")


def plan(setting: Setting, mode: Mode = "derived") -> Plan:
    """The plan of a setting, its data read or made."""
    root = None if setting.data else cifar10()
    on_noise = setting.data == NOISE or (setting.data is None and root is None)
    data = {"name": setting.data or "cifar10", "train_images": setting.images}
    study = spec.parse(
        {
            "seeds": list(setting.seeds),
            "strategies": list(setting.strategies),
            "backbone": setting.backbone if isinstance(setting.backbone, str) else {**setting.backbone},
            "data": data | {"test_images": setting.test_images} | ({"root": str(root)} if root else {}),
            "recipe": {"epochs": setting.epochs, "learning_rate": setting.learning_rate},
            "execution": {"mode": mode, **setting.execution},
            "numerics": setting.numerics,
        },
        "the benchmark's study",
    )
    if not on_noise:
        return make_plan(study)
    train, test = (noise(n, setting.shape) for n in (setting.images, setting.test_images))
    return make_plan(study, data=from_dataset(train, test=test, name="made"))


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
    conduct = RunConfig(devices.chosen(), folder / "cache", checkpoint_seconds)
    with closing(run(plan, Store(folder / "store"), conduct)) as stream:
        for event in stream:
            if isinstance(event, Failed):
                raise RuntimeError(f"phase {plan.nodes[event.key].name} failed: {event.reason}")
            yield event


def trained(plan: Plan) -> float:
    """Seconds of all phases in a store that goes again, by the engine's own clock."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="offramp-bench-") as folder:
        for event in events(plan, Path(folder)):
            if isinstance(event, Finished):
                seconds[event.key] = event.seconds
            if len(seconds) == len(plan.nodes):  # the networks' answers are not asked for
                break
    return sum(seconds.values())
