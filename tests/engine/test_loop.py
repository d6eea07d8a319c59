"""Phases in a loop of one's own, against `fit`: the same batches, the same optimizer, the same bits."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from offramp import program
from offramp.data import Data, bounds, from_dataset, order
from offramp.engine.fit import fit
from offramp.engine.images import Images
from offramp.engine.losses import balanced
from offramp.engine.passes import Plain
from offramp.engine.settings import applied
from offramp.engine.trainee import enroll, handed_on, trained_state
from offramp.engine.weights import Weights
from offramp.nets import ExitNetwork
from offramp.nets.network import inside
from offramp.parts import head, heads, path, segments
from offramp.phase import CE, Phase
from offramp.strategies import STRATEGIES
from support import CPU, NUMERICS, network, tiny_data, tiny_plan, tiny_study

BATCH = 16
RATE = 0.01
EXACT = replace(NUMERICS, frozen_batch=BATCH)
"""Frozen parts see batches as they are: a loop pads none."""


def refined(exits: int) -> tuple[Phase, ...]:
    """A strategy of a user's: rates by part, and a second phase at another rate."""
    return (
        Phase(
            "all",
            segments(1, exits) | heads(1, exits),
            tuple(CE(k) for k in range(1, exits + 1)),
            rates={head(1): 0.5},
        ),
        Phase("again", head(1), (CE(1),), recipe={"learning_rate_scale": 0.1}),
    )


CASES: dict[str, tuple[Any, dict[str, Any]]] = {name: (name, {}) for name in STRATEGIES} | {
    "a function": (refined, {}),
    "students on trunks": ("distillation", {"students": "independent"}),
    "a file": (f"{__file__}:refined", {}),
    "shared students": ("distillation", {"students": "shared"}),
    "smoothed and weighed": ("joint", {}),
}
SMOOTHED = {"label_smoothing": 0.1, "class_weights": "balanced"}  # of the recipe of that case


def by_fit(
    strategy: Any,
    options: Mapping[str, Any],
    epochs: int = 1,
    recipe: Mapping[str, Any] = {},
    data: Data | None = None,
) -> ExitNetwork:
    """What the engine's plain execution ends in."""
    study = tiny_study(
        [{"name": strategy, **options}],
        recipe={"epochs": epochs, "batch_size": BATCH, "learning_rate": RATE, **recipe},
        execution={"mode": "plain"},
    )
    plan = replace(tiny_plan(study, data or whole_batches()), numerics=EXACT)
    (trial,) = plan.trials
    done: dict[str, dict[str, Tensor]] = {}
    images = Images(plan.data, CPU)
    with applied(EXACT):
        weights = Weights(plan.net, trial.seed, done.__getitem__, CPU)
        for node in trial.resolved.nodes:
            trainee = enroll(node, weights, EXACT.fused_optimizer)
            list(fit([trainee], Plain(images, [node], weights, BATCH), images, BATCH))
            done[node.key] = handed_on(trainee, trained_state(trainee))
        resolved = trial.resolved
        return weights.assembled(resolved.final, resolved.owners, resolved.carry)


@cache
def whole_batches() -> Data:
    """Training images that are whole batches."""
    drawn = tiny_data(images=150).train
    return from_dataset(
        (drawn.images[:32], drawn.labels[:32]), *[(drawn.images[32:48], drawn.labels[32:48])] * 3
    )


@cache
def several_labels() -> Data:
    """The same images, each with its digit and the next for labels."""
    parts = []
    for split in (whole_batches().train, whole_batches().test):
        digits = one_hot(split.labels, 3)
        parts.append((split.images, (digits | digits.roll(1, 1)).to(torch.uint8)))
    return from_dataset(parts[0], *parts[1:] * 3)


def by_hand(
    strategy: Any,
    options: Mapping[str, Any],
    epochs: int = 1,
    seed: int = 42,
    smoothed: bool = False,
    data: Data | None = None,
) -> ExitNetwork:
    """The loop of README."""
    # As fit lays weights out, which sums round by.
    net = network.__wrapped__("digits-cnn").to(memory_format=torch.channels_last)
    images = Images(data or whole_batches(), CPU)
    count = images.count("train")
    more: dict[str, Any] = {"several_labels": data is not None and data.several}
    if smoothed:
        labels = images.labels("train", torch.arange(count))
        more |= {"class_weights": balanced(labels, net.classes), "label_smoothing": 0.1}
    with applied(EXACT):
        for phase in program(net, strategy, options=options, seed=42, **more):
            with phase:
                optimizer = torch.optim.SGD(phase.groups(RATE), momentum=0.9, fused=True)
                for epoch in range(epochs):
                    permutation = order(seed, epoch, count)
                    for step, (low, high) in enumerate(bounds(count, BATCH)):
                        rows = permutation[low:high]
                        # Dropout draws by seed, epoch and step, as in fit.
                        inside(net).clock.tick(42, epoch, step)
                        loss = phase.module(images.read("train", rows), images.labels("train", rows))
                        optimizer.zero_grad()
                        loss.backward()
                        # None is without, as processes that train together wait for all.
                        assert all(parameter.grad is not None for parameter in phase.parameters())
                        optimizer.step()
                inside(net).clock.stop()
    return net


def differing(some: ExitNetwork, other: ExitNetwork) -> list[tuple[int, str]]:
    """By exit, what its answer depends on that is not the same bits: trunks of exits' own have deeper
    layers too, which nobody reads."""
    one, two = inside(some), inside(other)
    return [
        (exit, name)
        for exit in range(1, some.exits + 1)
        for part in path(exit)
        for name, tensor in one.state(part, one.trunk_of[exit - 1]).items()
        if not torch.equal(tensor, two.state(part, two.trunk_of[exit - 1])[name])
    ]


@pytest.mark.parametrize("case", CASES)
def test_a_loop_by_hand_ends_in_the_bits_of_fit(case: str) -> None:
    smoothed = case == "smoothed and weighed"
    fitted = by_fit(*CASES[case], recipe=SMOOTHED if smoothed else {})
    own = by_hand(*CASES[case], smoothed=smoothed)
    assert list(own.state_dict()) == list(fitted.state_dict())
    assert differing(own, fitted) == []


def test_another_order_of_batches_is_noticed() -> None:
    """The control."""
    assert differing(by_hand("joint", {}, seed=43), by_fit("joint", {}))


@pytest.mark.parametrize("strategy", ["joint", "two-stage", "distillation"])
def test_of_several_labels_it_ends_in_the_same_bits(strategy: str) -> None:
    data = several_labels()
    fitted, own = by_fit(strategy, {}, data=data), by_hand(strategy, {}, data=data)
    assert differing(own, fitted) == []
    assert differing(own, by_hand(strategy, {}))  # the control: other losses
