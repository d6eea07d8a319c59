"""The contenders of frozen.py. Each maker is called once in a process of its own, and what it returns
trains a task there and says how long it took.

Settings that a process makes once are those of the command `offramp` for offramp and for the careful
loop alike (the allocator, threads, precision): what differs between them is the algorithm. earlyon gets
what a script that uses it gets: torch's defaults, with as many threads.
"""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import safetensors.torch
import torch
from torch import nn

from benchmarks import frozen_by_hand
from benchmarks.frozen_by_hand import Timed
from benchmarks.frozen_task import SEED, Task, fresh, plan_of, ready
from benchmarks.subjects import events
from offramp import device as devices
from offramp.engine.settings import applied, placed
from offramp.nets.backbones.lookup import origin_of
from offramp.process import keep_freed_memory
from offramp.store.store import Store
from offramp.study.plan.plan import Plan, net_spec
from offramp.study.run.events import Finished
from offramp.study.run.run import Conduct

Train = Callable[[Task, int], Timed]


def engine(mode: str) -> Train:
    """offramp, as a study runs it. mode: of execution, `derived` or `plain`."""
    keep_freed_memory()

    @functools.cache
    def warm_plan(task: Task, epochs: int) -> Plan:
        plan = plan_of(task, epochs, mode)
        _warm(plan)
        return plan

    return lambda task, epochs: _run(warm_plan(task, epochs))


def by_hand() -> Train:
    """The careful loop."""
    keep_freed_memory()

    @functools.cache
    def warm_plan(task: Task) -> Plan:
        plan = plan_of(task, 1)
        _warm(plan)
        return plan

    def train(task: Task, epochs: int) -> Timed:
        plan = warm_plan(task)
        net = fresh(plan)
        placed(net, devices.chosen())
        recipe = plan.study.recipe.recipe
        with applied(plan.numerics):
            jobs = frozen_by_hand.JOBS[task.strategy](net)
            return frozen_by_hand.run(jobs, net, plan.data.to(devices.chosen()), recipe, epochs, SEED)

    return train


def earlyon() -> Train:
    """earlyon's second stage, `stage2_train_exits`, as it ships: the backbone as torchvision lays it
    out, its optimizer (Adam), its loop, with normalized images in a TensorDataset and a DataLoader in
    the same process. Heads and their first weights are offramp's, through its public wrapper, so that
    both train the same; nothing is downloaded."""
    from earlyon.core.types import EarlyExitConfig, ExitPoint
    from earlyon.core.wrappers import EarlyExitWrapper
    from earlyon.training.two_stage_trainer import TrainStepLog, stage2_train_exits
    from torch.utils.data import DataLoader, TensorDataset

    def wrapped(task: Task, plan: Plan) -> Any:
        net = fresh(plan)
        taps = list(zip(net.places, net.trunks[0].shapes, strict=True))[:-1]
        points = [ExitPoint(f"e{k}", place, shape[0]) for k, (place, shape) in enumerate(taps)]
        heads = {p.name: copy.deepcopy(h) for p, h in zip(points, net.heads, strict=True)}
        config = EarlyExitConfig("custom", net.classes, points)
        return EarlyExitWrapper(_module(task, plan), heads, lambda x: x, config, (1, *net.input_shape))

    @functools.cache
    def loaders(task: Task) -> tuple[Plan, Any, Any]:
        plan = plan_of(task, 1)
        torch.set_num_threads(task.threads)
        splits = (plan.data.train, plan.data.validation)
        sets = [
            TensorDataset(ready(plan.data, s.images).contiguous(), s.labels.to(devices.chosen()))
            for s in splits
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
        logs: list[TrainStepLog] = []
        began = perf_counter()
        stage2_train_exits(
            model,
            training,
            validation,
            epochs=epochs,
            lr=recipe.learning_rate,
            device=devices.chosen().type,
            on_epoch_end=logs.append,
        )
        seconds = (perf_counter() - began) / epochs  # each epoch ended with numbers read
        return Timed(epochs, 0.0, seconds, (_heads_accuracy(model, validation),))

    return train


def _run(plan: Plan) -> Timed:
    """Run the phases of a plan in a new store; the finished network's answers are not asked for."""
    left = set(plan.nodes)
    with tempfile.TemporaryDirectory(prefix="offramp-bench-") as folder:
        began = perf_counter()
        for event in events(plan, Path(folder), Conduct.checkpoint_seconds):
            if isinstance(event, Finished):
                left.discard(event.key)
            if not left:
                break
        return told(Store(Path(folder) / "store"), plan, perf_counter() - began)


def told(store: Store, plan: Plan, whole: float) -> Timed:
    """What the store says of the phases of a plan, which took `whole` seconds by our own clock."""
    nodes = list(plan.nodes.values())
    epochs = nodes[0].recipe.epochs
    spent: dict[str, float] = {}
    accuracies, losses = [], []
    for node in nodes:
        for kind, seconds in store.node_cost(node.key).seconds.items():
            spent[kind] = spent.get(kind, 0.0) + seconds
        rows = store.node_history(node.key)
        rows = rows[rows["split"] == "validation"].sort_values("epoch")
        accuracies.append(rows[rows["metric"] == "accuracy"]["value"].tolist())
        losses.append(rows[rows["metric"] == "loss"]["value"].tolist())
    looped = sum(spent.get(kind, 0.0) for kind in ("train", "validation", "data", "checkpoint"))
    return Timed(
        epochs,
        fixed=whole - looped - spent["evaluation"],
        epoch=looped / epochs,
        accuracies=tuple(zip(*accuracies, strict=True)),
        losses=tuple(zip(*losses, strict=True)),
        last=spent["evaluation"],
    )


@torch.no_grad()
def _warm(plan: Plan) -> None:
    """Run the network once on a batch, so that no contender pays for its process's first kernels."""
    net = plan.net.copy().eval()
    placed(net, devices.chosen())
    with applied(plan.numerics):
        net(_batch(plan))


def _batch(plan: Plan) -> torch.Tensor:
    return ready(plan.data, plan.data.train.images[: plan.study.recipe.batch_size])


def _module(task: Task, plan: Plan) -> nn.Module:
    """The backbone as torchvision defines it, with the trunk's weights in it."""
    made = origin_of(net_spec(plan.study), plan.data.shape, len(plan.data.classes)).make
    assert made is not None
    module = made()
    module.load_state_dict(safetensors.torch.load_file(task.trunk))
    return module


@torch.no_grad()
def _heads_accuracy(model: Any, loader: Any) -> tuple[float, ...]:
    """Of each early exit; earlyon tells the mean over exits only."""
    model.eval()
    hits: list[float] = []
    count = 0
    for images, labels in loader:
        found = [(out.argmax(1) == labels).sum().item() for out in model(images, mode="training")[:-1]]
        hits = [a + b for a, b in zip(hits or [0.0] * len(found), found, strict=True)]
        count += len(labels)
    return tuple(h / count for h in hits)
