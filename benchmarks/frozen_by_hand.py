"""Training on a frozen trunk as a careful user writes it by hand: no engine, no cache.

One phase after another; of the frozen layers only those that the phase needs, in eval mode and under
no_grad; all images resident; channels-last; PyTorch's fused optimizers; nothing read from the device but
what an epoch's validation comes to. It is given the modules of an `ExitNetwork`, so that both sides
train the same network from the same weights, sees the same images in the same order and draws the same
dropout masks: what differs is only what is computed how often.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from offramp.data import Data, bounds, normalize, order
from offramp.nets import ExitNetwork
from offramp.nets.network import inside
from offramp.parts import Part
from offramp.recipe import Recipe

Numbers = tuple[tuple[float, ...], ...]

TEMPERATURE, ALPHA = 3.0, 0.1  # of distillation, as in the paper


@dataclass(frozen=True)
class Phase:
    """The head of an exit, and the network's segments from `first` to that exit: none where `first` is
    behind it.  taught: whether the frozen rest of the network is its teacher."""

    exit: int
    first: int
    taught: bool = False

    @property
    def trained(self) -> list[Part]:
        segments = range(self.first, self.exit + 1)
        return [*(Part("segment", i) for i in segments), Part("head", self.exit)]


@dataclass(frozen=True)
class Timed:
    """A training of `epochs` epochs.

    Attributes:
        fixed: Seconds that do not depend on their number: preparation, the cache's filling included, and
            what stores the outcome.
        epoch: Seconds an epoch, validation and checkpoints included.
        accuracies: On the validation split, epochs by phase.
        losses: The same, where a contender has them.
        last: Seconds of the looks at the whole training split, in eval mode, after the last epoch; no
            other contender takes one, so they are in no total.
    """

    epochs: int
    fixed: float
    epoch: float
    accuracies: Numbers
    losses: Numbers = ()
    last: float = 0.0

    def total(self, epochs: int) -> float:
        """Seconds of that many epochs."""
        return self.fixed + epochs * self.epoch


def phases(strategy: str, net: ExitNetwork) -> list[Phase]:
    """branch-wise: a segment and its head at a time, on what those before it have learned; two-stage and
    distillation: a head at a time, on the layers below it."""
    if strategy == "branch-wise":
        return [Phase(k, k) for k in range(1, net.exits + 1)]
    return [Phase(k, k + 1, strategy == "distillation") for k in range(1, net.exits)]


def run(
    phases: Sequence[Phase], net: ExitNetwork, data: Data, recipe: Recipe, epochs: int, seed: int
) -> Timed:
    """Train the phases one after another, `epochs` epochs each. net, data: on one device."""
    began = perf_counter()
    by_phase = [list(_train(phase, net, data, recipe, epochs, seed)) for phase in phases]
    seconds = (perf_counter() - began) / epochs  # every epoch ended with a number read: all is done
    accuracies, losses = (
        tuple(tuple(phase[epoch][i] for phase in by_phase) for epoch in range(epochs)) for i in (0, 1)
    )
    return Timed(epochs, 0.0, seconds, accuracies, losses)


def _train(
    phase: Phase, net: ExitNetwork, data: Data, recipe: Recipe, epochs: int, seed: int
) -> Iterator[tuple[float, float]]:
    """The validation accuracy and loss of each epoch."""
    net.requires_grad_(False)
    net.eval()
    parameters = [p for part in phase.trained for p in inside(net).parameters_of(part)]
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
        for part in phase.trained:
            inside(net).train_part(part, True)
        permutation = order(seed, epoch, count).to(device)
        for number, (low, high) in enumerate(bounds(count, recipe.batch_size)):
            inside(net).clock.tick(seed, epoch, number)
            rows = permutation[low:high]
            loss, _ = _answer(phase, net, normalize(images[rows], mean, std), data.train.labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        inside(net).clock.stop()
        for part in phase.trained:
            inside(net).train_part(part, False)
        loss_sum = hits = torch.zeros((), device=device)
        with torch.no_grad():
            for low, high in bounds(len(held_out), recipe.batch_size):
                labels = data.validation.labels[low:high]
                loss, logits = _answer(phase, net, normalize(held_out[low:high], mean, std), labels)
                loss_sum = loss_sum + loss * len(labels)
                hits = hits + (logits.argmax(1) == labels).sum()
        yield float(hits) / len(held_out), float(loss_sum) / len(held_out)


def _answer(phase: Phase, net: ExitNetwork, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of normalized images, and their logits."""
    with torch.no_grad():
        below = _through(net, 1, phase.first - 1, (images,))
        rest = _through(net, phase.first, net.exits, below) if phase.taught else ()
        teacher = inside(net).head_body(net.exits)(*rest) if phase.taught else None
    above = _through(net, phase.first, phase.exit, below)
    last = phase.exit == net.exits
    logits = (
        inside(net).head_body(phase.exit)(*above)
        if last
        else inside(net).heads[phase.exit - 1](above[0])
    )
    hard = F.cross_entropy(logits, labels)
    if teacher is None:
        return hard, logits
    guess = F.log_softmax(logits / TEMPERATURE, dim=1)
    target = F.log_softmax(teacher / TEMPERATURE, dim=1)
    soft = TEMPERATURE**2 * F.kl_div(guess, target, reduction="batchmean", log_target=True)
    return ALPHA * hard + (1 - ALPHA) * soft, logits


def _through(net: ExitNetwork, first: int, last: int, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    for i in range(first, last + 1):
        tensors = inside(net).segment(i)(*tensors)
    return tensors


def _optimizer(parameters: Sequence[torch.nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=recipe.learning_rate, fused=True)
    return torch.optim.SGD(parameters, lr=recipe.learning_rate, momentum=recipe.momentum, fused=True)
