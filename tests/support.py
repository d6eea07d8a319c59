"""What many tests need: tiny data, studies and plans, run on one thread."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from longer import long_where
from offramp.data import Data, from_dataset
from offramp.nets import ExitNetwork, NetSpec, build
from offramp.numerics import Numerics, profile
from offramp.store.store import Store
from offramp.strategies import GROUPS
from offramp.study.plan.plan import Plan, plan_trials
from offramp.study.run.events import Event
from offramp.study.run.run import RunConfig, run
from offramp.study.spec import file as spec

CPU = torch.device("cpu")

PAPER = tuple(GROUPS["the paper's nine"])

# Test processes share two cores: one thread each, and every other setting as in production.
NUMERICS: Numerics = replace(profile("default", "cpu"), threads=1)

SHAPES = {"digits-cnn": (1, 8, 8)}

LARGE = frozenset({"mobilenetv1", "mobilenetv2", "resnet20", "resnet50", "vgg16"})
"""Backbones on which a test of all repeats, for many seconds, what it shows on the others."""


def backbones(
    cases: Iterable[Any], name: Callable[[Any], str] = str, more: Iterable[str] = ()
) -> list[Any]:
    """Parameters of a test of each: those of LARGE, and `more`, with --long. name: the backbone of a
    case. One that is new is in neither."""
    costly = LARGE.union(more)
    return long_where(cases, lambda case: name(case) in costly)


@cache
def tiny_data(shape: tuple[int, int, int] = (1, 8, 8), images: int = 90, classes: int = 3) -> Data:
    """Images that a network can learn: noise, brighter for higher classes; split as any data."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(images) % classes
    noise = (torch.rand(images, *shape, generator=generator) * 120).to(torch.uint8)
    return from_dataset((noise + (labels * 40).view(-1, 1, 1, 1).to(torch.uint8), labels))


def tiny_study(
    strategies: Sequence[str | Mapping[str, Any]] = PAPER,
    backbone: str = "digits-cnn",
    *,
    seeds: Sequence[int] = (42,),
    recipe: Mapping[str, Any] | None = None,
    **more: Any,
) -> spec.Study:
    """A study of short schedules; `more` are further keys of the file, such as execution."""
    short = {"epochs": 2, "batch_size": 16, "learning_rate": 0.01} | dict(recipe or {})
    return spec.parse(
        {
            "seeds": list(seeds),
            "strategies": list(strategies),
            "backbone": backbone,
            "data": "given",
            "recipe": short,
            **more,
        }
    )


@cache
def network(backbone: str, classes: int = 3, seed: int = 42) -> ExitNetwork:
    """A template; plans copy it and never change it."""
    return build(NetSpec(backbone), SHAPES.get(backbone, (3, 32, 32)), classes, seed)


def tiny_plan(study: spec.Study, data: Data | None = None, net: ExitNetwork | None = None) -> Plan:
    """The plan of a study on tiny data."""
    name = study.backbone.name
    data = tiny_data(SHAPES.get(name, (3, 32, 32))) if data is None else data
    net = network(name, len(data.classes)) if net is None else net
    return plan_trials(study, data, net, NUMERICS)


def run_all(plan: Plan, store: Path, **conduct: Any) -> tuple[Store, list[Event]]:
    """Run a plan in this process; the store and what happened."""
    opened = Store(store)
    return opened, list(run(plan, opened, RunConfig(CPU, store / "caches", **conduct)))


class Vision(nn.Module):
    """Images [B, 3, side, side] → logits [B, classes]: patches of 4×4 px behind a class token, then five
    layers of attention, `blocks.0` to `blocks.4`."""

    def __init__(self, side: int, width: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.first = nn.Parameter(torch.randn(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, 1 + (side // 4) ** 2, width))
        self.blocks = nn.Sequential(
            *(nn.TransformerEncoderLayer(width, 2, 24, 0.1, "gelu", batch_first=True) for _ in range(5))
        )
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        lying = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.first.expand(lying.shape[0], -1, -1), lying), 1) + self.place
        return self.classifier(self.blocks(x)[:, 0])  # type: ignore[no-any-return]
