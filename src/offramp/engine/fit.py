"""The training loop: one generator, an epoch at a time, for one phase or several fused ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from offramp import device as devices
from offramp.data import bounds, order
from offramp.engine.images import Images
from offramp.engine.losses import objective
from offramp.engine.passes import Logits, Pass
from offramp.engine.resolve import Node
from offramp.engine.trainee import OBJECTIVE, Row, Trainee, restore, step, train_mode, trained_state
from offramp.errors import OfframpError
from offramp.recipe import finished


@dataclass(frozen=True)
class EpochReport:
    """What an epoch of one node came to. Losses and accuracies by exit; `seconds` of this epoch."""

    key: str
    epoch: int
    loss: float
    validation_loss: float
    accuracy: Mapping[int, float]
    validation_accuracy: Mapping[int, float]
    seconds: float


@dataclass(frozen=True)
class Diverged:
    """A loss that is not finite: the node stops here, and what was finished before it stays."""

    key: str
    phase: str
    epoch: int
    step: int
    rate: float

    def __str__(self) -> str:
        return (
            f"the loss of phase '{self.phase}' is not finite at epoch {self.epoch}, "
            f"step {self.step}, learning rate {self.rate:g}; lower recipe.learning_rate"
        )


class Tally:
    """Sums of loss, cross-entropy and hits over a pass, kept on the device and read once."""

    def __init__(self, node: Node, steps: int, device: torch.device) -> None:
        self.losses = torch.zeros(steps, device=device)
        self._sums = torch.zeros(1 + 2 * len(node.exits), dtype=torch.float64, device=device)
        self._exits = node.exits
        self._count = 0

    @torch.no_grad()
    def add(self, step: int, loss: Tensor, logits: Logits, labels: Tensor) -> None:
        self.losses[step] = loss
        found = [loss * len(labels)]
        for exit in self._exits:
            found.append(F.cross_entropy(logits[exit].detach(), labels, reduction="sum"))
            found.append((logits[exit].argmax(1) == labels).sum())
        self._sums += torch.stack([value.double() for value in found])
        self._count += len(labels)

    def read(self) -> tuple[float, dict[int, tuple[float, float]]]:
        """The mean loss, and (cross-entropy, accuracy) by exit. Waits for the device."""
        loss, *rest = (self._sums / self._count).tolist()
        pairs = zip(rest[::2], rest[1::2], strict=True)
        return loss, dict(zip(self._exits, pairs, strict=True))


def fit(
    trainees: Sequence[Trainee], passes: Pass, images: Images, batch_size: int
) -> Iterator[list[EpochReport | Diverged]]:
    """Train until every trainee is finished; yields after each epoch.

    The trainees stand at the same epoch and share seed and batch size; each has its own optimizer and
    stops on its own. The order of samples is a function of (seed, epoch), the view of an augmented image
    of (seed, epoch, image), noise of (seed, operation, epoch, step), so nothing depends on who else is
    in the group. Nothing but this training is augmented. A diverged trainee leaves.
    """
    active = [t for t in trainees if not finished(t.validation_losses, t.node.recipe)]
    count = images.count("train")
    limits = bounds(count, batch_size)
    while active:
        images.take_seconds()
        began = perf_counter()
        epoch = active[0].epoch
        tallies = _train_epoch(active, passes, images, limits, epoch)
        devices.synchronize(images.device)
        trained, reading = perf_counter(), images.take_seconds()
        checks = evaluate(active, passes, images, "validation", batch_size)
        reports = [_close_epoch(t, tallies[t.node.key], checks[t.node.key], len(limits)) for t in active]
        devices.synchronize(images.device)
        checked, rereading = perf_counter(), images.take_seconds()
        spent = {
            "train": trained - began - reading,
            "validation": checked - trained - rereading,
            "data": reading + rereading,
        }
        for trainee in active:  # a fused epoch is shared by its phases in equal parts
            for kind, seconds in spent.items():
                trainee.spend(kind, seconds / len(active))
            trainee.epoch_seconds.append(sum(spent.values()) / len(active))
        left = {r.key for r in reports if isinstance(r, Diverged)}
        active = [t for t in active if t.node.key not in left]
        each = sum(spent.values()) / len(reports)
        yield [r if isinstance(r, Diverged) else replace(r, seconds=each) for r in reports]
        active = [t for t in active if not finished(t.validation_losses, t.node.recipe)]


def _train_epoch(
    active: Sequence[Trainee],
    passes: Pass,
    images: Images,
    limits: Sequence[tuple[int, int]],
    epoch: int,
) -> dict[str, Tally]:
    seed = active[0].node.seed
    permutation = order(seed, epoch, images.count("train")).to(images.device)
    view = None if images.augment is None else images.augment.view(seed, epoch)
    tallies = {t.node.key: Tally(t.node, len(limits), images.device) for t in active}
    nodes = [t.node for t in active]
    for trainee in active:
        train_mode(trainee, True)
    chunks = [permutation[low:high] for low, high in limits]
    for number, read in enumerate(passes.reads("train", chunks, view, nodes)):
        rows = chunks[number]
        labels = images.labels("train", rows)
        for trainee in active:
            trainee.net.clock.tick(trainee.node.seed, epoch, number)
            try:
                logits, teacher = passes.logits(trainee.node, trainee.net, read)
            except ValueError as error:  # BatchNorm's word on a single value per channel
                if len(rows) > 1:
                    raise
                raise OfframpError(
                    f"phase '{trainee.node.name}' cannot train on batches of one image, since BatchNorm "
                    "needs several; set recipe.batch_size to 2 or more"
                ) from error
            progress = epoch + number / len(limits)
            class_weights = images.class_weights(trainee.node.recipe)
            loss = step(trainee, logits, teacher, labels, progress, class_weights)
            tallies[trainee.node.key].add(number, loss, logits, labels)
    for trainee in active:
        trainee.net.clock.stop()
        train_mode(trainee, False)
    return tallies


@torch.no_grad()
def evaluate(
    trainees: Sequence[Trainee], passes: Pass, images: Images, split: str, batch_size: int
) -> dict[str, Tally]:
    """Loss, cross-entropy and accuracy of each trainee on a split, in eval mode, images as they are."""
    rows = torch.arange(images.count(split), device=images.device)
    pieces = torch.split(rows, batch_size)
    tallies = {t.node.key: Tally(t.node, len(pieces), images.device) for t in trainees}
    nodes = [t.node for t in trainees]
    for number, read in enumerate(passes.reads(split, pieces, None, nodes)):
        labels = images.labels(split, pieces[number])
        for trainee in trainees:
            logits, teacher = passes.logits(trainee.node, trainee.net, read)
            class_weights = images.class_weights(trainee.node.recipe)
            loss = objective(trainee.node.terms, logits, teacher, labels, class_weights)
            tallies[trainee.node.key].add(number, loss, logits, labels)
    return tallies


def _close_epoch(
    trainee: Trainee, train: Tally, validation: Tally, steps: int
) -> EpochReport | Diverged:
    """Read the tallies, record them, remember the best weights."""
    node = trainee.node
    bad = (~torch.isfinite(train.losses)).nonzero().flatten().tolist()
    loss, at_exits = train.read()
    validation_loss, checked = validation.read()
    if bad or not math.isfinite(validation_loss):
        number = bad[0] + 1 if bad else steps
        rate = node.recipe.rate(trainee.epoch + (number - 1) / steps)
        return Diverged(node.key, node.name, trainee.epoch + 1, number, rate)
    trainee.epoch += 1
    record(trainee, trainee.epoch, "train", loss, at_exits)
    record(trainee, trainee.epoch, "validation", validation_loss, checked)
    trainee.validation_losses.append(validation_loss)
    if trainee.best_epoch == trainee.epoch:
        trainee.best = trained_state(trainee)
    seen = {k: accuracy for k, (_, accuracy) in at_exits.items()}
    unseen = {k: accuracy for k, (_, accuracy) in checked.items()}
    return EpochReport(node.key, trainee.epoch, loss, validation_loss, seen, unseen, 0.0)


def record(
    trainee: Trainee, epoch: int, split: str, loss: float, at_exits: Mapping[int, tuple[float, float]]
) -> None:
    """Add one pass over a split to the history."""
    trainee.rows.append(Row(epoch, split, OBJECTIVE, "loss", loss))
    for exit, (entropy, accuracy) in at_exits.items():
        place = trainee.net.places[exit - 1]
        trainee.rows.append(Row(epoch, split, place, "cross_entropy", entropy))
        trainee.rows.append(Row(epoch, split, place, "accuracy", accuracy))


def conclude(trainee: Trainee, passes: Pass, images: Images, batch_size: int) -> dict[str, Tensor]:
    """Record the training split in eval mode at the last and the best epoch; returns the selected
    weights, which the network then holds."""
    began = perf_counter()
    last = trained_state(trainee)
    states = {trainee.epoch: last}
    if trainee.best_epoch != trainee.epoch:
        states[trainee.best_epoch] = trainee.best
    for epoch, state in states.items():
        restore(trainee, state)
        tallies = evaluate([trainee], passes, images, "train", batch_size)
        loss, at_exits = tallies[trainee.node.key].read()
        record(trainee, epoch, "train-eval", loss, at_exits)
    chosen = states[trainee.selected_epoch]
    restore(trainee, chosen)
    trainee.spend("evaluation", perf_counter() - began)
    return chosen
