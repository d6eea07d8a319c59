"""Whole studies as contenders: trained by the package's own engine, a step at a time, in a process
that starts as the command starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from offramp.cli import prepare
from offramp.openmp import GIVEN, SPINS
from offramp.strategies import STRATEGIES

ROOT = Path(__file__).parents[1]
Mode = Literal["derived", "plain"]
MADE = "made images of CIFAR-10's shape"
MALLOC = tuple(name for name in os.environ if name.startswith("MALLOC_"))
BARE: Mapping[str, str | None] = dict.fromkeys((*GIVEN, "OMP_NUM_THREADS", *MALLOC))
"""The environment of a process that starts as the command does where the user set nothing."""
AS_COMMAND: Mapping[str, str | None] = {**BARE, "GOMP_SPINCOUNT": str(SPINS)}
"""The same with what the command sets: for a process that does not call `prepare` itself."""


@dataclass(frozen=True)
class Setting:
    """A study to time. images: of the training set, of which some are held out.  data: a name, or MADE;
    None for CIFAR-10 where it is, else MADE.  execution: further settings of it."""

    backbone: str
    images: int
    epochs: int
    seeds: tuple[int, ...] = (42,)
    strategies: tuple[str, ...] = tuple(STRATEGIES)
    test_images: int = 1000
    batch_size: int = 128
    learning_rate: float = 0.05
    data: str | None = None
    execution: Mapping[str, Any] = field(default_factory=dict)


def cifar10() -> Path | None:
    """The folder of CIFAR-10, in $OFFRAMP_DATA or where the tests look for it."""
    for root in (os.environ.get("OFFRAMP_DATA"), ROOT.parent / "shared" / "data"):
        if root and (Path(root) / "cifar10").is_dir():
            return Path(root) / "cifar10"
    return None


def pictures(setting: Setting) -> str:
    """What the images are, for a note."""
    if setting.data is not None:
        return setting.data
    return "CIFAR-10" if cifar10() else f"{MADE} (it is not here)"


def plan(setting: Setting, mode: Mode) -> Any:
    """The plan of a setting, its data read or made."""
    from offramp.study.plan.plan import make_plan

    study = study_of(setting, mode)
    made = setting.data == MADE or (setting.data is None and cifar10() is None)
    return make_plan(study, data=made_data(setting) if made else None)


def study_of(setting: Setting, mode: Mode) -> Any:
    from offramp.study.spec import models as spec

    data: dict[str, Any] = {
        "name": setting.data or "cifar10",
        "train_images": setting.images,
        "test_images": setting.test_images,
    }
    if setting.data is None and (root := cifar10()):
        data["root"] = str(root)
    recipe = {
        "epochs": setting.epochs,
        "batch_size": setting.batch_size,
        "learning_rate": setting.learning_rate,
    }
    return spec.parse(
        {
            "seeds": list(setting.seeds),
            "strategies": list(setting.strategies),
            "backbone": setting.backbone,
            "data": data,
            "recipe": recipe,
            "execution": {"mode": mode, **setting.execution},
        },
        "the benchmark's study",
    )


def made_data(setting: Setting) -> Any:
    """Noise in ten classes, brighter for higher ones, in as many images as the setting asks for."""
    import torch

    from offramp.data import from_dataset

    generator = torch.Generator().manual_seed(1)

    def noise(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % 10
        pixels = torch.randint(0, 160, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return pixels + (labels * 10).view(-1, 1, 1, 1).to(torch.uint8), labels

    return from_dataset(noise(setting.images), test=noise(setting.test_images), name="made")


def study(setting: Setting, mode: Mode, folder: str, until: str) -> Callable[[], dict[str, Any] | None]:
    """A contender that runs a study into a store in `folder`. Each call goes on to the next finished
    phase (`until` = "phase") or to the next epoch of a group of phases ("epoch") and answers what it
    took; None once all is done. The clocks of the engine stand still between the calls."""
    prepare()
    import math

    from offramp import device as devices
    from offramp.store.store import Store
    from offramp.study.plan.limits import cache_folder
    from offramp.study.run.events import Began, Epoch, Failed, Finished
    from offramp.study.run.run import Conduct, run

    made = plan(setting, mode)
    store = Store(Path(folder) / mode)
    conduct = Conduct(devices.chosen(), cache_folder(), checkpoint_seconds=math.inf)
    events = run(made, store, conduct)
    group: tuple[str, ...] = ()
    reports: list[Any] = []

    def finished(key: str) -> dict[str, Any]:
        cost = store.node_cost(key)
        return {
            "phase": made.nodes[key].name,
            "strategies": made.users[key],
            "seed": made.nodes[key].seed,
            "seconds": cost["seconds"],
            "macs": made.macs(key),
        }

    def epoch() -> dict[str, Any]:
        first = made.nodes[group[0]]
        others = f" and {len(group) - 1} fused" if len(group) > 1 else ""
        return {
            "group": f"{made.users[first.key][0]}: {first.name}{others}",
            "seed": first.seed,
            "epoch": reports[0].epoch,
            "seconds": sum(report.seconds for report in reports),
        }

    def advance() -> dict[str, Any] | None:
        nonlocal group
        for event in events:
            if isinstance(event, Failed):
                raise RuntimeError(f"phase {made.nodes[event.key].name} failed: {event.reason}")
            if isinstance(event, Began):
                group = event.keys
                reports.clear()
            if isinstance(event, Finished) and until == "phase":
                return finished(event.key)
            if isinstance(event, Epoch) and until == "epoch":
                reports.append(event.report)
                if len(reports) == len(group):
                    found = epoch()
                    reports.clear()
                    return found
        return None

    return advance
