"""What the contenders of frozen.py train, and the contenders. Each maker is called once in a process of
its own, and what it returns trains a task there and says how long it took.

Settings that a process makes once are those of the command `offramp` for offramp and for the careful
loop alike (the allocator, threads, precision): what differs between them is the algorithm. earlyon gets
what a script that uses it gets: torch's defaults, with as many threads.
"""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from benchmarks import frozen_by_hand
from benchmarks.frozen_by_hand import Timed
from benchmarks.subjects import cifar10, events, noise
from offramp import device as devices
from offramp.data import Data, DataSpec, load, statistics
from offramp.data.dataset import Split
from offramp.engine.settings import applied, placed
from offramp.nets import NetSpec, build
from offramp.nets.backbones.lookup import origin_of
from offramp.nets.network import inside, redrawn
from offramp.numerics import profile
from offramp.process import keep_freed_memory
from offramp.store.store import Store
from offramp.study.plan.plan import Plan, net_spec, plan_trials
from offramp.study.run.events import Finished
from offramp.study.run.run import RunConfig
from offramp.study.spec import file as studies

CLASSES = 10
CALIBRATION = 256  # images that batch statistics of a drawn trunk are taken from
SEED = 1

Pairs = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Task:
    """A strategy on a network with its weights.

    Attributes:
        trunk: The file of weights that `write_trunk` leaves.
        images: That train.
        validation: Images that are looked at after every epoch.
        options: Of the backbone.
        head: What differs from the backbone's own heads.
        recipe: What differs from the default one.
        threads: Of one training.
    """

    trunk: str
    images: int = 10_000
    validation: int = 500
    strategy: str = "two-stage"
    backbone: str = "resnet50"
    options: Pairs = ()
    head: Pairs = ()
    recipe: Pairs = ()
    threads: int = 2

    @property
    def keeps_trunk(self) -> bool:
        """Whether the trunk is given and stays; otherwise everything is trained from a draw."""
        return self.strategy != "branch-wise"


@functools.cache
def pictures(train: int, validation: int) -> Data:
    """CIFAR-10's images where it is, or made ones; there are no others to calibrate and to test."""
    root = cifar10()
    if root is None:
        split, other = Split(*noise(train)), Split(*noise(validation, seed=2))
    else:
        count = train + max(train // 19, 200) + 20  # some are held out to calibrate; not used here
        spec = DataSpec("cifar10", str(root), count, validation, validation="test")
        data = load(spec, loader="resident")
        split, other = Split(data.train.images[:train], data.train.labels[:train]), data.test
    mean, std = statistics(split.images)
    classes = tuple(map(str, range(CLASSES)))
    words = "made images (no CIFAR-10 was found)" if root is None else "CIFAR-10 images"
    return Data(
        words, classes, train=split, validation=other, calibration=other, test=other, mean=mean, std=std
    )


def plan_of(task: Task, epochs: int) -> Plan:
    """What a study file would say of the task. With a kept backbone its phases are the frozen ones
    alone: stage 2 of two-stage, distillation's students."""
    study = studies.parse(
        {
            "seeds": [SEED],
            "strategies": [{"name": task.strategy} | ({"backbone": "kept"} if task.keeps_trunk else {})],
            "backbone": {"name": task.backbone, **dict(task.options)}
            | ({"weights": task.trunk} if task.keeps_trunk else {}),
            "exits": {"head": dict(task.head)},
            "data": "given",
            "recipe": {**dict(task.recipe), "epochs": epochs},
        },
        "benchmark",
    )
    data = pictures(task.images, task.validation)
    net = build(net_spec(study, data.shape), data.shape, len(data.classes), SEED)
    numerics = replace(profile(study.numerics, devices.chosen().type), threads=task.threads)
    return plan_trials(study, data, net, numerics)


def write_trunk(task: Task) -> None:
    """A trunk to keep: drawn at random, its batch statistics taken from training images, so that what
    it puts out neither grows nor shrinks with depth. How long frozen layers take does not depend on
    whether they were trained; that heads learn on them does show in the accuracies."""
    data = pictures(task.images, task.validation)
    net = build(NetSpec(task.backbone, task.options), data.shape, CLASSES, SEED)
    module = inside(net).trunks[0].module
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0  # take those of this one pass
    module.train().to(devices.chosen())
    with torch.no_grad():
        module(_ready(data, data.train.images[:CALIBRATION]))
    state = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    safetensors.torch.save_file(state, task.trunk)


Train = Callable[[Task, int], Timed]


def engine() -> Train:
    """offramp, as a study runs it."""
    keep_freed_memory()
    plan_for = functools.cache(lambda task, epochs: _warm(plan_of(task, epochs)))
    return lambda task, epochs: _run(plan_for(task, epochs))


def by_hand() -> Train:
    """The careful loop."""
    keep_freed_memory()
    plan_for = functools.cache(lambda task: _warm(plan_of(task, 1)))

    def train(task: Task, epochs: int) -> Timed:
        plan = plan_for(task)
        net = redrawn(plan.net, SEED)
        placed(net, devices.chosen())
        recipe, data = plan.study.recipe.recipe, plan.data.to(devices.chosen())
        with applied(plan.numerics):
            phases = frozen_by_hand.phases(task.strategy, net)
            return frozen_by_hand.run(phases, net, data, recipe, epochs, SEED)

    return train


def earlyon() -> Train:
    """earlyon's second stage, `stage2_train_exits`, as it ships.

    Its backbone is laid out as torchvision does, with its optimizer (Adam) and its loop, and normalized
    images in a TensorDataset and a DataLoader in the same process. Heads and their first weights are
    offramp's, through its public wrapper, so that both train the same; nothing is downloaded.

    Returns:
        The contender.
    """
    from earlyon.core.types import EarlyExitConfig, ExitPoint
    from earlyon.core.wrappers import EarlyExitWrapper
    from earlyon.training.two_stage_trainer import stage2_train_exits
    from torch.utils.data import DataLoader, TensorDataset

    def wrapped(task: Task, plan: Plan) -> Any:
        net = redrawn(plan.net, SEED)
        taps = list(zip(net.places, inside(net).trunks[0].shapes, strict=True))[:-1]
        points = [ExitPoint(f"e{k}", place, shape[0]) for k, (place, shape) in enumerate(taps)]
        heads = {p.name: copy.deepcopy(h) for p, h in zip(points, inside(net).heads, strict=True)}
        config = EarlyExitConfig("custom", net.classes, points)
        make = origin_of(net_spec(plan.study, plan.data.shape), plan.data.shape, CLASSES).make
        assert make is not None
        module = make()  # the backbone as torchvision defines it
        module.load_state_dict(safetensors.torch.load_file(task.trunk))
        return EarlyExitWrapper(module, heads, lambda x: x, config, (1, *net.input_shape))

    @functools.cache
    def loaders(task: Task) -> tuple[Plan, Any, Any]:
        plan = plan_of(task, 1)
        torch.set_num_threads(task.threads)
        sets = [
            TensorDataset(_ready(plan.data, s.images).contiguous(), s.labels.to(devices.chosen()))
            for s in (plan.data.train, plan.data.validation)
        ]
        batch = plan.study.recipe.batch_size
        return plan, DataLoader(sets[0], batch, shuffle=True), DataLoader(sets[1], batch)

    def train(task: Task, epochs: int) -> Timed:
        plan, training, validation = loaders(task)
        recipe = plan.study.recipe.recipe
        if task.strategy != "two-stage" or recipe.optimizer != "adam":
            raise ValueError("earlyon's stage 2 trains heads on their cross-entropy with Adam")
        torch.manual_seed(SEED)
        model = wrapped(task, plan).to(devices.chosen()).eval()
        with torch.no_grad():  # as `_warm`
            model(_batch(plan).contiguous(), mode="training")
        settings = {"epochs": epochs, "lr": recipe.learning_rate, "device": devices.chosen().type}
        began = perf_counter()
        stage2_train_exits(model, training, validation, **settings, on_epoch_end=[].append)
        seconds = (perf_counter() - began) / epochs  # each epoch ended with numbers read
        return Timed(epochs, 0.0, seconds, (_heads_accuracy(model, validation),))

    return train


def _run(plan: Plan) -> Timed:
    """Run the phases of a plan in a new store; the finished network's answers are not asked for."""
    left = set(plan.nodes)
    with tempfile.TemporaryDirectory(prefix="offramp-bench-") as folder:
        began = perf_counter()
        for event in events(plan, Path(folder), RunConfig.checkpoint_seconds):
            if isinstance(event, Finished):
                left.discard(event.key)
            if not left:
                break
        whole, store = perf_counter() - began, Store(Path(folder) / "store")
        costs = [store.node_cost(key).seconds for key in plan.nodes]
        histories = [store.node_history(key) for key in plan.nodes]
    epochs = next(iter(plan.nodes.values())).recipe.epochs
    looped = sum(
        cost.get(k, 0.0) for cost in costs for k in ("train", "validation", "data", "checkpoint")
    )
    last = sum(cost["evaluation"] for cost in costs)
    checks = [rows[rows["split"] == "validation"].sort_values("epoch") for rows in histories]
    accuracies, losses = (
        tuple(zip(*(rows[rows["metric"] == metric]["value"] for rows in checks), strict=True))
        for metric in ("accuracy", "loss")
    )
    return Timed(epochs, whole - looped - last, looped / epochs, accuracies, losses, last)


@torch.no_grad()
def _warm(plan: Plan) -> Plan:
    """Run the network once on a batch, so that no contender pays for its process's first kernels."""
    net = copy.deepcopy(plan.net).eval()
    placed(net, devices.chosen())
    with applied(plan.numerics):
        net(_batch(plan))
    return plan


def _batch(plan: Plan) -> Tensor:
    return _ready(plan.data, plan.data.train.images[: plan.study.recipe.batch_size])


def _ready(data: Data, images: Tensor) -> Tensor:
    """uint8 [B, C, H, W] → normalized float32 on the device, in rows of channels."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    scaled = (images.cpu() / 255 - mean) / std
    return scaled.to(devices.chosen()).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _heads_accuracy(model: Any, loader: Any) -> tuple[float, ...]:
    """Of each early exit; earlyon tells the mean over exits only."""
    model.eval()
    hits = [
        torch.stack([out.argmax(1) == labels for out in model(images, mode="training")[:-1]])
        for images, labels in loader
    ]
    return tuple(torch.cat(hits, dim=1).double().mean(dim=1).tolist())
