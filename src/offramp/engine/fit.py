"""The training loop: one generator, an epoch at a time, for one phase or several fused ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from offramp import device as devices
from offramp.data import bounds, order
from offramp.engine.images import Images
from offramp.engine.norms import normalizing
from offramp.engine.passes import Pass
from offramp.engine.tally import Tally, measured
from offramp.engine.trainee import (
    OBJECTIVE,
    Row,
    Step,
    Trainee,
    averaged,
    handed_on,
    loss_of,
    outcome,
    restore,
    step,
    train_mode,
    trained_state,
)
from offramp.engine.values import IMAGES, Point, Tensors, compute, pad, reads_cached
from offramp.errors import OfframpError
from offramp.nets.network import ExitNetwork, inside
from offramp.process import uninterrupted
from offramp.recipe import finished
from offramp.units import counted, ranges


@dataclass(frozen=True)
class EpochReport:
    """One epoch of one node: the phase's own losses, accuracies by exit, 0 to 1, and seconds of it
    all."""

    key: str
    epoch: int
    loss: float
    validation_loss: float
    accuracy: Mapping[int, float]
    validation_accuracy: Mapping[int, float]
    seconds: float

    def line(self, epochs: int | None = None) -> str:
        """`epoch 3/20 · loss 0.512 · validation 84.9 92.7 % at exits 1–2`"""
        exits = sorted(self.validation_accuracy)
        accuracy = " ".join(f"{100 * self.validation_accuracy[k]:.1f}" for k in exits)
        where = f"exit{'s' if len(exits) > 1 else ''} {ranges(exits)}"
        number = self.epoch if epochs is None else f"{self.epoch}/{epochs}"
        return f"epoch {number} · loss {self.loss:.3f} · validation {accuracy} % at {where}"


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


def fit(
    trainees: Sequence[Trainee], passes: Pass, images: Images, batch_size: int
) -> Iterator[list[EpochReport | Diverged]]:
    """Train until every trainee is finished.

    The order of samples is a function of (seed, epoch), the view of an augmented image of (seed, epoch,
    image), noise of (seed, operation, epoch, step), so nothing depends on who else is in the group.
    Nothing but this training is augmented. A diverged trainee leaves.

    Between two steps, and while images are read or validated, it may be interrupted (KeyboardInterrupt):
    each trainee's `tally` then tells where in the epoch it stands.

    Args:
        trainees: At the same step of the same epoch, with one seed and batch size; each has its own
            optimizer and stops on its own.
        passes: Of these.
        images: That they train on.
        batch_size: Images a step.

    Yields:
        After each epoch, a report of each.

    Raises:
        OfframpError: For an average of weights that no step would update, and for batches of one image
            where BatchNorm needs more.
    """
    active = [t for t in trainees if not finished(t.validation_losses, t.node.recipe)]
    count = images.count("train")
    limits = bounds(count, batch_size)
    for trainee in active:
        _check_average(trainee, len(limits))
    while active:
        images.take_seconds()
        began = images.clock()
        try:
            tallies = _train_epoch(active, passes, images, limits)
            devices.synchronize(images.device)
            trained, reading = images.clock(), images.take_seconds()
            with averaged(active):
                checks = evaluate(active, passes, images, "validation", batch_size)
        except KeyboardInterrupt:
            for trainee in active:
                if trainee.tally is not None:
                    trainee.tally.seconds += (images.clock() - began) / len(active)
            raise
        with uninterrupted():
            reports = [
                _close_epoch(t, tally, checks[t.node.key], len(limits))
                for t, tally in zip(active, tallies, strict=True)
            ]
            devices.synchronize(images.device)
            checked, rereading = images.clock(), images.take_seconds()
            spent = {
                "train": trained - began - reading,
                "validation": checked - trained - rereading,
                "data": reading + rereading,
            }
            # A fused epoch is shared by its phases in equal parts; one that was cut short counts as
            # training up to there.
            for trainee, tally in zip(active, tallies, strict=True):
                for kind, seconds in spent.items():
                    trainee.spend(kind, seconds / len(active))
                trainee.spend("train", tally.seconds)
                trainee.epoch_seconds.append(sum(spent.values()) / len(active) + tally.seconds)
        left = {r.key for r in reports if isinstance(r, Diverged)}
        active = [t for t in active if t.node.key not in left]
        each = sum(spent.values()) / len(reports)
        yield [r if isinstance(r, Diverged) else replace(r, seconds=each) for r in reports]
        active = [t for t in active if not finished(t.validation_losses, t.node.recipe)]


def _check_average(trainee: Trainee, steps: int) -> None:
    """An average that is never updated is what the phase began with, and would be handed on as such.
    Patience and the best epoch look at it after each epoch, the first one included."""
    recipe = trainee.node.recipe
    looked_at = recipe.patience is not None or recipe.selects_best
    most, when = (steps, " an epoch") if looked_at else (steps * recipe.epochs, "")
    if recipe.average != "none" and recipe.average_every > most:
        raise OfframpError(
            f"phase '{trainee.node.name}' has {counted(most, 'step')}{when} and updates its average "
            f"every {recipe.average_every}; set recipe.average_every to {most} or less"
        )


def _train_epoch(
    active: Sequence[Trainee],
    passes: Pass,
    images: Images,
    limits: Sequence[tuple[int, int]],
) -> list[Tally]:
    """Train on what is left of the current epoch. Returns the trainees' tallies, of all of the epoch."""
    seed, epoch = active[0].node.seed, active[0].epoch
    done = active[0].steps
    view = None if images.augment is None else images.augment.view(seed, epoch)
    nodes = [t.node for t in active]
    ranks, owned = images.ranks, any(reads_cached(node) for node in nodes)
    permutation = order(seed, epoch, images.count("train"))
    shares = ranks.shares(permutation, limits[done:], owned, images.device)
    tallies = []
    for trainee in active:
        train_mode(trainee, True)
        if trainee.tally is None:
            trainee.tally = Tally.begun(trainee.node.exits, images.device)
        tallies.append(trainee.tally)
    chunks = [share.rows for share in shares]
    for number, read in enumerate(passes.reads("train", chunks, view, nodes), start=done):
        share = shares[number - done]
        labels = images.labels("train", share.rows)
        # A step that is cut short would leave weights and moments of different steps.
        with uninterrupted(), normalizing(ranks, share):
            for trainee, tally in zip(active, tallies, strict=True):
                inside(trainee.net).clock.tick(ranks.noise(trainee.node.seed), epoch, number)
                try:
                    mine, theirs = passes.answers(trainee.node, trainee.net, read)
                except ValueError as error:  # BatchNorm's word on a single value per channel
                    if share.total > 1:
                        raise
                    raise OfframpError(
                        f"phase '{trainee.node.name}' cannot train on batches of one image, since "
                        "BatchNorm needs several; set recipe.batch_size to 2 or more"
                    ) from error
                class_weights = images.class_weights(trainee.node.recipe)
                at = Step(number, len(limits), ranks, share.weight)
                tally.add(step(trainee, mine, theirs, labels, class_weights, at), share.total)
    for trainee in active:
        inside(trainee.net).clock.stop()
        train_mode(trainee, False)
    return tallies


@torch.no_grad()
def evaluate(
    trainees: Sequence[Trainee], passes: Pass, images: Images, split: str, batch_size: int
) -> dict[str, Tally]:
    """Loss, cross-entropy and accuracy of each trainee on a split, in eval mode, images as they are;
    each rank looks at its own."""
    rows = images.ranks.own(images.count(split)).to(images.device)
    pieces = torch.split(rows, batch_size)
    tallies = {t.node.key: Tally.begun(t.node.exits, images.device) for t in trainees}
    nodes = [t.node for t in trainees]
    for number, read in enumerate(passes.reads(split, pieces, None, nodes)):
        labels = images.labels(split, pieces[number])
        for trainee in trainees:
            node = trainee.node
            mine, theirs = passes.answers(node, trainee.net, read)
            loss = loss_of(trainee, mine, theirs, labels, images.class_weights(node.recipe))
            tallies[node.key].add(measured(node.exits, loss, mine.logits, labels), len(labels))
    for tally in tallies.values():
        tally.sums, tally.images = images.ranks.sum(tally.sums), images.count(split)
    return tallies


def _close_epoch(
    trainee: Trainee, train: Tally, validation: Tally, steps: int
) -> EpochReport | Diverged:
    """Read the tallies, record them, remember the best weights. A diverged trainee keeps its tally:
    interrupted and resumed, it diverges again."""
    node = trainee.node
    bad = (~torch.isfinite(torch.cat(train.losses))).nonzero().flatten().tolist()
    loss, at_exits = train.read()
    validation_loss, checked = validation.read()
    if bad or not math.isfinite(validation_loss):
        number = bad[0] + 1 if bad else steps
        rate = node.recipe.rate(trainee.epoch + (number - 1) / steps)
        return Diverged(node.key, node.name, trainee.epoch + 1, number, rate)
    trainee.tally = None
    trainee.epoch += 1
    record(trainee, trainee.epoch, "train", loss, at_exits)
    record(trainee, trainee.epoch, "validation", validation_loss, checked)
    trainee.validation_losses.append(validation_loss)
    if trainee.best_epoch == trainee.epoch:
        trainee.best = outcome(trainee)
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
    weights, which the network then holds. Interrupted, the trainee is as it was."""
    began, rows = images.clock(), len(trainee.rows)
    training = trained_state(trainee)
    states = {trainee.epoch: outcome(trainee)}
    if trainee.best_epoch != trainee.epoch:
        states[trainee.best_epoch] = trainee.best
    try:
        for epoch, state in states.items():
            restore(trainee, state)
            tallies = evaluate([trainee], passes, images, "train", batch_size)
            loss, at_exits = tallies[trainee.node.key].read()
            record(trainee, epoch, "train-eval", loss, at_exits)
        chosen = states[trainee.selected_epoch]
        weights = handed_on(trainee, chosen)
        restore(trainee, chosen)
    except KeyboardInterrupt:
        with uninterrupted():  # Ctrl-C may be pressed twice
            restore(trainee, training)
            del trainee.rows[rows:]
        raise
    trainee.spend("evaluation", images.clock() - began)
    return weights


@torch.no_grad()
def split_logits(
    net: ExitNetwork,
    images: Images,
    split: str,
    exits: Sequence[int],
    batch: int,
    mirrored: bool = False,
) -> np.ndarray:
    """The logits of exits' heads on a split, in eval mode; each trunk's layers run once a batch.

    Each rank answers every so many batches; all get all of it. mirrored: of the images with left and
    right exchanged.

    Returns:
        [N, len(exits), classes] float32.
    """
    ranks, count = images.ranks, images.count(split)
    every = torch.split(torch.arange(count, device=images.device), batch)
    pieces = every[ranks.rank :: ranks.count]
    each = -(-len(every) // ranks.count)  # of a rank, at most
    mine = torch.zeros(each, batch, len(exits), net.classes, device=images.device)
    for place, piece, read in zip(mine, pieces, images.reads(split, pieces), strict=False):
        (pixels,) = pad(read.flip(3) if mirrored else read, batch)
        by_trunk: dict[int, dict[Point, Tensors]] = {}
        logits = []
        for exit in exits:
            trunk = inside(net).trunk_of[exit - 1]
            values = by_trunk.setdefault(trunk, {IMAGES: (pixels,)})
            logits.append(compute(net, values, Point("logits", exit), trunk))
        place[: len(piece)] = torch.stack([value[: len(piece)] for (value,) in logits], dim=1)
    answers = ranks.gather(mine).transpose(0, 1).reshape(-1, len(exits), net.classes)[:count]
    return np.asarray(answers.cpu().numpy())


@torch.no_grad()
def answers_of(net: ExitNetwork, own: np.ndarray, exits: Sequence[int]) -> np.ndarray:
    """What exits answer, from `split_logits` of all of them: both are [N, len(exits), classes]."""
    if not inside(net).carry:
        return own
    logits = torch.from_numpy(own).to(next(net.parameters()).device)
    answers: list[torch.Tensor] = []
    for at, exit in enumerate(exits):
        answers.append(inside(net).answer(exit, logits[:, at], answers[-1] if answers else None))
    return np.asarray(torch.stack(answers, dim=1).cpu().numpy())
