"""Joint training as it is written by hand in PyTorch, and as offramp's engine does it.

Each way is a generator that trains without end and yields an epoch at a time. In the first epoch no
dropout is at work, so that ways which ought to compute the same can be held against each other: the
engine draws the masks of each dropout by name, which a loop by hand does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import perf_counter
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.subjects import noise
from offramp import device as devices
from offramp.data import Data, Split, order
from offramp.engine.fit import Diverged, fit
from offramp.engine.images import Images
from offramp.engine.passes import Derived
from offramp.engine.resolve import Setting, resolve
from offramp.engine.settings import applied, laid_out, placed
from offramp.engine.trainee import enroll
from offramp.engine.weights import Weights
from offramp.nets import ExitNetwork, NetSpec, build
from offramp.nets.backbones.airbench import LOGITS_SCALE
from offramp.nets.heads import ClockedDropout
from offramp.nets.network import inside, prepared, redrawn
from offramp.numerics import MemoryFormat, Numerics
from offramp.process import keep_freed_memory
from offramp.recipe import Recipe
from offramp.strategies.joint import joint, loss_weights
from offramp.study.run.costs import meter

CLASSES, SEED = 10, 42
RATE, MOMENTUM = 0.001, 0.9  # gentle: random labels must not make it diverge
HALF = (0.5, 0.5, 0.5)  # mean and deviation of what the made images hold


@dataclass(frozen=True)
class Case:
    """A network of the registry on square images.  steps: of an epoch, batches of `batch` images.
    options: of the backbone, where they are not its defaults. optimizer: of the engine. layout: of
    memory, where it is not that of the profile."""

    backbone: str
    pixels: int
    batch: int
    steps: int
    options: tuple[tuple[str, str], ...] = ()
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    layout: MemoryFormat | None = None

    @property
    def name(self) -> str:
        return " ".join([self.backbone, *(value for _, value in self.options), f"{self.pixels} px"])


@dataclass(frozen=True)
class Epoch:
    """seconds: of a training step, the mean over the epoch.  loss: the joint loss in training, its mean
    over the images.  validation_loss: afterwards, in eval mode; None where the way has no validation."""

    seconds: float
    loss: float
    validation_loss: float | None = None


class ByHand(nn.Module):
    """Images [B, C, H, W] → logits [B, classes] of every exit: stages one after another, a head behind
    each. The last head is the network's own classifier."""

    def __init__(self, stages: Sequence[nn.Module], heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> list[Tensor]:
        logits = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            logits.append(head(x))
        return logits


class Times(nn.Module):
    """Any tensor, times a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def network(case: Case) -> ExitNetwork:
    """With the registry's exits and heads, its weights drawn from SEED."""
    net = build(NetSpec(case.backbone, case.options), (3, case.pixels, case.pixels), CLASSES, SEED)
    data = noise_data(case)
    sample = data.train.images, torch.tensor(data.mean), torch.tensor(data.std)
    return redrawn(prepared(net, lambda: sample), SEED)


def by_hand(case: Case) -> ByHand:
    """The layers and weights of `network(case)` as plain modules, in train mode."""
    net = network(case)
    layers, ends, last = _layers(case.backbone, inside(net).trunks[0].module)
    stages = [nn.Sequential(*layers[a:b]) for a, b in zip((0, *ends), (*ends, None), strict=True)]
    heads = [
        nn.Sequential(*(nn.Dropout(m.p) if isinstance(m, ClockedDropout) else m for m in layers))
        for layers in ([*head.pool, *head.body] for head in inside(net).heads)
    ]
    return ByHand(stages, [*heads, nn.Sequential(*last)]).train()


def _layers(backbone: str, net: nn.Module) -> tuple[list[nn.Module], tuple[int, ...], list[nn.Module]]:
    """The layers of a network in a row, how many of them lie before each early exit, its classifier."""
    if backbone == "mobilenetv1":
        blocks = [block for stage in net.blocks for block in stage]
        return [net.conv_stem, net.bn1, *blocks], (5, 8, 13), [net.global_pool, net.classifier]
    if backbone == "mobilenetv2":
        pool = nn.AdaptiveAvgPool2d(1)
        return [*net.features], (4, 11, 15), [pool, nn.Flatten(), *net.classifier]
    if backbone == "airbench":
        layers = [net.stem, net.group1, *net.group2, net.group3]
        last = [nn.AdaptiveMaxPool2d(1), nn.Flatten(), net.classifier, Times(LOGITS_SCALE)]
        return layers, (2, 3, 4), last
    if backbone == "vgg16":
        return [*net.features], (9, 16, 23), [nn.Flatten(), *net.classifier]
    *layers, pool, classifier = net.children()  # ResNets
    return layers, (5, 6, 7), [pool, nn.Flatten(), classifier]


def noise_data(case: Case) -> Data:
    """Noise: the time of a step does not depend on what it sees."""
    shape = (3, case.pixels, case.pixels)
    counts = (case.batch * case.steps, min(32, case.batch))  # a loop evaluates in one piece
    train, rest = (Split(*noise(count, shape, CLASSES, SEED)) for count in counts)
    return Data(
        "noise",
        tuple(map(str, range(CLASSES))),
        train=train,
        validation=rest,
        calibration=rest,
        test=rest,
        mean=HALF,
        std=HALF,
    )


def engine(case: Case, numerics: Numerics) -> Iterator[Epoch]:
    """As a run trains: the engine's own loop, with a meter running."""
    keep_freed_memory()
    where = devices.chosen()
    template = network(case)
    recipe = Recipe(
        epochs=10**6,
        batch_size=case.batch,
        optimizer=case.optimizer,
        learning_rate=RATE,
        momentum=MOMENTUM,
        select="last",
    )
    (node,) = resolve(joint(template.exits), template, Setting({}, recipe, numerics, SEED)).nodes
    weights = Weights(template, SEED, {}.__getitem__, where, numerics.memory_format)
    trainee = enroll(node, weights, numerics.fused_optimizer)
    restore_dropout = _silenced(trainee.net)
    with applied(numerics), meter(where):
        images = Images(noise_data(case), where, memory_format=numerics.memory_format)
        passes = Derived(images, [node], weights, max(case.batch, numerics.frozen_batch), None)
        before = 0.0
        for (report,) in fit([trainee], passes, images, case.batch):
            if isinstance(report, Diverged):
                raise RuntimeError(str(report))
            spent = sum(s for kind, s in trainee.seconds.items() if kind != "validation")
            yield Epoch((spent - before) / case.steps, report.loss, report.validation_loss)
            before = spent
            restore_dropout()


def equal_settings(case: Case, numerics: Numerics) -> Iterator[Epoch]:
    """By hand, with the settings of a run: memory layout, fused SGD, deterministic kernels, its threads
    and allocator, images that stay on the device as bytes."""
    keep_freed_memory()
    where = devices.chosen()
    data = noise_data(case).to(where)
    mean, std = (torch.tensor(v, device=where)[:, None, None] for v in (data.mean, data.std))
    scale, shift = (255 * std).reciprocal(), -mean / std

    def ready(images: Tensor) -> Tensor:
        floats = images.to(torch.float32).mul_(scale).add_(shift)
        return laid_out(floats, numerics.memory_format)

    with applied(numerics):
        model = by_hand(case)
        placed(model, where, numerics.memory_format)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, fused=True)
        restore_dropout = _silenced(model)
        for epoch in count():
            devices.synchronize(where)
            began = perf_counter()
            total = torch.zeros((), dtype=torch.float64, device=where)
            for rows in order(SEED, epoch, len(data.train)).to(where).split(case.batch):
                images, labels = ready(data.train.images[rows]), data.train.labels[rows]
                total += step(model, optimizer, images, labels) * len(rows)
            devices.synchronize(where)
            seconds = (perf_counter() - began) / case.steps
            model.eval()
            with torch.no_grad():
                checked = joint_loss(model(ready(data.validation.images)), data.validation.labels)
            model.train()
            yield Epoch(seconds, float(total) / len(data.train), float(checked))
            restore_dropout()


def defaults(case: Case, numerics: Numerics) -> Iterator[Epoch]:
    """By hand, with what PyTorch does unless told otherwise; only the number of threads is a run's."""
    where = devices.chosen()
    torch.set_num_threads(numerics.threads)
    data = noise_data(case)
    pixels = data.train.images.float().div_(255).sub_(0.5).div_(0.5)
    loader = DataLoader(TensorDataset(pixels, data.train.labels), batch_size=case.batch, shuffle=True)
    model = by_hand(case).to(where)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    while True:
        devices.synchronize(where)
        began = perf_counter()
        total = 0.0
        for images, labels in loader:
            images, labels = images.to(where), labels.to(where)
            total += step(model, optimizer, images, labels).item() * len(labels)
        devices.synchronize(where)
        yield Epoch((perf_counter() - began) / case.steps, total / len(data.train))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
    """One update; the loss, still on the device."""
    loss = joint_loss(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def joint_loss(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """The weighted sum of the exits' cross-entropies, the weights as joint training has them."""
    weights = loss_weights("linear", len(logits))
    first, *rest = (w * F.cross_entropy(x, labels) for w, x in zip(weights, logits, strict=True))
    return sum(rest, first)


def _silenced(net: nn.Module) -> Callable[[], None]:
    """Have dropout drop nothing until what this returns is called."""
    rates = {m: m.p for m in net.modules() if isinstance(m, nn.Dropout | ClockedDropout)}

    def let(drop: bool) -> None:
        for module, rate in rates.items():
            module.p = rate if drop else 0.0

    let(False)
    return partial(let, True)
