"""Training on a frozen trunk as a careful user writes it by hand: no engine, no cache.

One phase after another; of the frozen layers only those that the phase needs, in eval mode and under
no_grad; all images resident; channels-last; PyTorch's fused optimizers; nothing read from the device but
what an epoch's validation comes to. It is given the modules of an `ExitNetwork`, so that both sides
train the same network from the same weights, sees the same images in the same order and draws the same
dropout masks: what differs is only what is computed how often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from offramp.data import Data, bounds, normalize, order
from offramp.nets import ExitNetwork
from offramp.parts import Part
from offramp.recipe import Recipe

Tensors = tuple[Tensor, ...]
Numbers = tuple[tuple[float, ...], ...]

TEMPERATURE, ALPHA = 3.0, 0.1  # of distillation, as in the paper


@dataclass(frozen=True)
class Job:
    """One phase. below: the frozen layers, images → tensors.  above: what trains, those tensors →
    logits [B, classes].  trained: its parts.  teacher: the frozen rest of the network, the same tensors
    → its logits."""

    below: Callable[[Tensor], Tensors]
    above: Callable[[Tensors], Tensor]
    trained: Sequence[Part]
    teacher: Callable[[Tensors], Tensor] | None = None


@dataclass(frozen=True)
class Timed:
    """A training of `epochs` epochs. fixed: seconds that do not depend on their number: preparation,
    the cache's filling included, and what keeps the result.  epoch: seconds an epoch, validation and
    checkpoints included.  accuracies: on the validation split, epochs by phase.  losses: the same, where
    they are told.  last: seconds of the looks at the whole training split, in eval mode, after the last
    epoch, where any are taken; no other contender takes one, so they are in no total."""

    epochs: int
    fixed: float
    epoch: float
    accuracies: Numbers
    losses: Numbers = ()
    last: float = 0.0

    def total(self, epochs: int) -> float:
        """Seconds of that many epochs."""
        return self.fixed + epochs * self.epoch


def two_stage(net: ExitNetwork) -> list[Job]:
    """Stage 2: a head at a time, on the layers below it."""
    return [_head(net, k) for k in range(1, net.exits)]


def distillation(net: ExitNetwork) -> list[Job]:
    """A student at a time; the teacher goes on from where the student's layers end."""

    def teacher(k: int) -> Callable[[Tensors], Tensor]:
        return lambda tensors: net.body(net.exits)(*_through(net, k + 1, net.exits, tensors))

    jobs = (_head(net, k) for k in range(1, net.exits))
    return [Job(j.below, j.above, j.trained, teacher(k)) for k, j in enumerate(jobs, start=1)]


def branch_wise(net: ExitNetwork) -> list[Job]:
    """A stage at a time: its layers and its head, on what the stages before it have learned."""

    def job(k: int) -> Job:
        return Job(
            below=lambda images: _through(net, 1, k - 1, (images,)),
            above=lambda tensors: _logits(net, k, _through(net, k, k, tensors)),
            trained=[Part("segment", k), Part("head", k)],
        )

    return [job(k) for k in range(1, net.exits + 1)]


JOBS = {"two-stage": two_stage, "distillation": distillation, "branch-wise": branch_wise}


def run(
    jobs: Sequence[Job], net: ExitNetwork, data: Data, recipe: Recipe, epochs: int, seed: int
) -> Timed:
    """Train the jobs one after another, `epochs` epochs each. net, data: on one device."""
    began = perf_counter()
    by_phase = [list(_train(job, net, data, recipe, epochs, seed)) for job in jobs]
    seconds = (perf_counter() - began) / epochs  # every epoch ended with a number read: all is done
    accuracies, losses = (
        tuple(tuple(phase[epoch][i] for phase in by_phase) for epoch in range(epochs)) for i in (0, 1)
    )
    return Timed(epochs, 0.0, seconds, accuracies, losses)


def _train(
    job: Job, net: ExitNetwork, data: Data, recipe: Recipe, epochs: int, seed: int
) -> Iterator[tuple[float, float]]:
    """The validation accuracy and loss of each epoch."""
    net.requires_grad_(False)
    net.eval()
    parameters = [p for part in job.trained for p in net.parameters_of(part)]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = _optimizer(parameters, recipe)
    device = data.train.images.device
    mean, std = torch.tensor(data.mean, device=device), torch.tensor(data.std, device=device)
    images, held_out = (
        split.images.contiguous(memory_format=torch.channels_last)
        for split in (data.train, data.validation)
    )
    count = len(data.train.labels)

    for epoch in range(epochs):
        for part in job.trained:
            net.train_part(part, True)
        permutation = order(seed, epoch, count).to(device)
        for number, (low, high) in enumerate(bounds(count, recipe.batch_size)):
            net.clock.tick(seed, epoch, number)
            rows = permutation[low:high]
            labels = data.train.labels[rows]
            with torch.no_grad():
                tensors = job.below(normalize(images[rows], mean, std))
                taught = None if job.teacher is None else job.teacher(tensors)
            loss = _loss(job.above(tensors), taught, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        net.clock.stop()
        for part in job.trained:
            net.train_part(part, False)
        yield _validated(job, held_out, data.validation.labels, mean, std, recipe.batch_size)


@torch.no_grad()
def _validated(
    job: Job, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor, batch: int
) -> tuple[float, float]:
    loss_sum = torch.zeros((), device=images.device)
    hits = torch.zeros((), device=images.device)
    for some, theirs in zip(images.split(batch), labels.split(batch), strict=True):
        tensors = job.below(normalize(some, mean, std))
        taught = None if job.teacher is None else job.teacher(tensors)
        logits = job.above(tensors)
        loss_sum += _loss(logits, taught, theirs) * len(theirs)
        hits += (logits.argmax(1) == theirs).sum()
    return float(hits) / len(labels), float(loss_sum) / len(labels)


def _loss(logits: Tensor, teacher: Tensor | None, labels: Tensor) -> Tensor:
    hard = F.cross_entropy(logits, labels)
    if teacher is None:
        return hard
    guess = F.log_softmax(logits / TEMPERATURE, dim=1)
    target = F.log_softmax(teacher / TEMPERATURE, dim=1)
    soft = TEMPERATURE**2 * F.kl_div(guess, target, reduction="batchmean", log_target=True)
    return ALPHA * hard + (1 - ALPHA) * soft


def _optimizer(parameters: Sequence[torch.nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=recipe.learning_rate, fused=True)
    return torch.optim.SGD(parameters, lr=recipe.learning_rate, momentum=recipe.momentum, fused=True)


def _head(net: ExitNetwork, k: int) -> Job:
    return Job(
        below=lambda images: _through(net, 1, k, (images,)),
        above=lambda tensors: net.heads[k - 1](tensors[0]),
        trained=[Part("head", k)],
    )


def _through(net: ExitNetwork, first: int, last: int, tensors: Tensors) -> Tensors:
    for i in range(first, last + 1):
        tensors = net.segment(i)(*tensors)
    return tensors


def _logits(net: ExitNetwork, k: int, tensors: Tensors) -> Tensor:
    return net.body(k)(*tensors) if k == net.exits else net.heads[k - 1](tensors[0])
