"""What the contenders of frozen.py train: a task in words, and the files that all of them read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from benchmarks.subjects import cifar10, noise
from offramp import device as devices
from offramp.data import Data, DataSpec, load, statistics
from offramp.data.dataset import Split
from offramp.nets import ExitNetwork, NetSpec, build
from offramp.numerics import profile
from offramp.study.plan.plan import Plan, net_spec, plan_trials
from offramp.study.spec import file as studies

CLASSES = 10
CALIBRATION = 256  # images that batch statistics of a drawn trunk are taken from
SEED = 1

Pairs = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Task:
    """A strategy on a network with given weights. folder: of the files of `write_pictures` and
    `write_trunk`.  options: of the backbone.  head: what differs from the backbone's own heads.
    recipe: what differs from the default one.  threads: of one training."""

    folder: str
    strategy: str = "two-stage"
    backbone: str = "resnet50"
    options: Pairs = ()
    head: Pairs = ()
    recipe: Pairs = ()
    threads: int = 2

    @property
    def kept(self) -> bool:
        """Whether the trunk is given and stays; otherwise everything is trained from a draw."""
        return self.strategy != "branch-wise"

    @property
    def trunk(self) -> Path:
        return Path(self.folder) / "trunk.safetensors"


def plan_of(task: Task, epochs: int, mode: str = "derived") -> Plan:
    """What a study file would say of the task. With a kept backbone its phases are the frozen ones
    alone: stage 2 of two-stage, distillation's students."""
    study = studies.parse(
        {
            "seeds": [SEED],
            "strategies": [{"name": task.strategy} | ({"backbone": "kept"} if task.kept else {})],
            "backbone": {"name": task.backbone, **dict(task.options)}
            | ({"weights": str(task.trunk)} if task.kept else {}),
            "exits": {"head": dict(task.head)},
            "data": "given",
            "recipe": {**dict(task.recipe), "epochs": epochs},
            "execution": {"mode": mode},
        },
        "benchmark",
    )
    data = read_pictures(task.folder)
    net = build(net_spec(study), data.shape, len(data.classes), SEED)
    numerics = replace(profile(study.numerics, devices.chosen().type), threads=task.threads)
    return plan_trials(study, data, net, numerics)


def write_pictures(folder: Path, train: int, validation: int) -> str:
    """CIFAR-10's images where it is, or made ones; returns which, in words."""
    root = cifar10()
    if root is None:
        words, splits = "made images (no CIFAR-10 was found)", (noise(train), noise(validation, seed=2))
    else:
        wanted = train + max(train // 19, 200) + 20  # some are held out to calibrate; not used here
        spec = DataSpec("cifar10", str(root), wanted, validation, validation="test")
        found, words = load(spec, loader="resident"), "CIFAR-10 images"
        splits = (
            (found.train.images[:train], found.train.labels[:train]),
            (found.test.images, found.test.labels),
        )
    names = [f"{split}.{kind}" for split in ("train", "validation") for kind in ("images", "labels")]
    tensors = (tensor.contiguous() for pair in splits for tensor in pair)
    safetensors.torch.save_file(dict(zip(names, tensors, strict=True)), folder / "pictures.safetensors")
    return words


def read_pictures(folder: str) -> Data:
    """The splits of `write_pictures`; there is no other validation, calibration and test."""
    held = safetensors.torch.load_file(Path(folder) / "pictures.safetensors")
    train = Split(held["train.images"], held["train.labels"])
    other = Split(held["validation.images"], held["validation.labels"])
    mean, std = statistics(train.images)
    classes = tuple(map(str, range(CLASSES)))
    return Data("benchmark", classes, train, other, other, other, mean, std)


def write_trunk(task: Task) -> None:
    """A trunk to keep: drawn at random, its batch statistics taken from training images, so that what
    it puts out neither grows nor shrinks with depth. How long frozen layers take does not depend on
    whether they were trained; that heads learn on them does show in the accuracies."""
    data = read_pictures(task.folder)
    net = build(NetSpec(task.backbone, task.options), data.shape, CLASSES, SEED)
    module = net.trunks[0].module
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # take those of this one pass
    module.train().to(devices.chosen())
    with torch.no_grad():
        module(ready(data, data.train.images[:CALIBRATION]))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    state = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    safetensors.torch.save_file(state, task.trunk)


def ready(data: Data, images: Tensor) -> Tensor:
    """uint8 [B, C, H, W] → normalized float32 on the device, in rows of channels."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    scaled = (images.cpu() / 255 - mean) / std
    return scaled.to(devices.chosen()).contiguous(memory_format=torch.channels_last)


def fresh(plan: Plan) -> ExitNetwork:
    """The network as the plan's phases find it: given or drawn trunk, heads drawn from the seed."""
    return plan.net.redrawn(SEED)
