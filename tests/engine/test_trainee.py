"""A checkpoint holds all there is to a training run, whatever the optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from offramp.engine import trainee as engine
from offramp.engine.fit import Diverged, EpochReport, conclude, fit
from offramp.engine.passes import Images, Plain
from offramp.engine.resolve import Node, Setting, resolve
from offramp.engine.settings import applied
from offramp.engine.trainee import Trainee, enroll, pack, trained_state, unpack
from offramp.engine.weights import Weights
from offramp.nets import attach
from offramp.parts import head, segment
from offramp.recipe import Recipe
from offramp.store.store import Store
from offramp.strategies import STRATEGIES
from offramp.study.plan.plan import data_identity
from support import CPU, NUMERICS, network, tiny_data

pytestmark = pytest.mark.slow

RECIPES = {
    "sgd": Recipe(epochs=4, batch_size=16, learning_rate=0.02, weight_decay=1e-3),
    "sgd without momentum": Recipe(epochs=4, batch_size=16, learning_rate=0.02, momentum=0.0),
    "nesterov": Recipe(epochs=4, batch_size=16, learning_rate=0.02, nesterov=True),
    "adam": Recipe(epochs=4, batch_size=16, optimizer="adam", learning_rate=1e-3),
    "adamw": Recipe(
        epochs=4, batch_size=16, optimizer="adamw", learning_rate=1e-3, weight_decay=0.1, select="best"
    ),
    "cosine": Recipe(epochs=4, batch_size=16, learning_rate=0.02, schedule="cosine", warmup_epochs=1.0),
}


def first_node(recipe: Recipe, strategy: str = "joint") -> Node:
    setting = Setting(data_identity(tiny_data()), recipe, NUMERICS, seed=42)
    return resolve(STRATEGIES[strategy](4), network("digits-cnn"), setting).nodes[0]


def begin(node: Node) -> tuple[Trainee, Plain, Images]:
    images = Images(tiny_data(), CPU)
    weights = Weights(network("digits-cnn"), node.seed, {}.__getitem__, CPU)
    trainee = enroll(node, weights.network(node.start), NUMERICS.fused_optimizer)
    return trainee, Plain(images, [node], weights, 64), images


def epochs(trainee: Trainee, passes: Plain, images: Images) -> Iterator[list[EpochReport | Diverged]]:
    return fit([trainee], passes, images, trainee.node.recipe.batch_size)


def numbers(trainee: Trainee) -> list[tuple[Any, ...]]:
    return [(r.epoch, r.split, r.exit, r.metric, r.value) for r in trainee.rows]


def whole_run(node: Node) -> tuple[dict[str, Tensor], list[tuple[Any, ...]]]:
    trainee, passes, images = begin(node)
    for _ in epochs(trainee, passes, images):
        pass
    return conclude(trainee, passes, images, 16), numbers(trainee)


def interrupted_run(
    node: Node, after: int, store: Store
) -> tuple[dict[str, Tensor], list[tuple[Any, ...]]]:
    """Stopped after an epoch, then gone on with from what the store kept."""
    trainee, passes, images = begin(node)
    run = epochs(trainee, passes, images)
    for _ in range(after):
        next(run)
    store.write_checkpoint(node.key, *pack(trainee))
    again, passes, images = begin(node)
    saved = store.read_checkpoint(node.key)
    assert saved is not None
    unpack(again, *saved)
    assert again.epoch == after and again.validation_losses == trainee.validation_losses
    for _ in epochs(again, passes, images):
        pass
    return conclude(again, passes, images, 16), numbers(again)


@pytest.mark.parametrize("after", [1, 3])
@pytest.mark.parametrize("name", RECIPES)
def test_a_run_goes_on_from_a_checkpoint_to_the_same_bits(name: str, after: int, tmp_path: Path) -> None:
    node = first_node(RECIPES[name])
    with applied(NUMERICS):
        weights, history = whole_run(node)
        resumed, resumed_history = interrupted_run(node, after, Store(tmp_path))
    assert weights.keys() == resumed.keys()
    assert not [n for n in weights if not torch.equal(weights[n], resumed[n])]
    assert history == resumed_history


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_checkpoint_without_moments_does_not_do(name: str) -> None:
    """The control: what the optimizer remembers matters to the bits."""
    node = first_node(RECIPES[name])
    with applied(NUMERICS):
        weights, _ = whole_run(node)
        trainee, passes, images = begin(node)
        next(epochs(trainee, passes, images))
        tensors, state = pack(trainee)
        again, passes, images = begin(node)
        unpack(again, {k: t for k, t in tensors.items() if not k.startswith("optimizer/")}, state)
        for _ in epochs(again, passes, images):
            pass
    assert any(not torch.equal(weights[n], t) for n, t in trained_state(again).items())


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_moments_lie_in_memory_as_their_parameters_do(name: str, tmp_path: Path) -> None:
    """Fused kernels walk both in memory order, and files hold tensors contiguously."""
    node = first_node(RECIPES[name])
    store = Store(tmp_path)
    with applied(NUMERICS):
        trainee, passes, images = begin(node)
        next(epochs(trainee, passes, images))
        store.write_checkpoint(node.key, *pack(trainee))
        again, _, _ = begin(node)
        saved = store.read_checkpoint(node.key)
        assert saved is not None
        unpack(again, *saved)
    shuffled = 0
    for parameter, fields in again.optimizer.state.items():
        for value in fields.values():
            if value is not None and value.dim():
                assert value.stride() == parameter.stride()
                shuffled += not value.is_contiguous()
    assert shuffled, "no parameter of this network is channels-last, so this shows nothing"


def test_a_checkpoint_has_only_what_trains() -> None:
    node = first_node(RECIPES["adam"], "branch-wise")
    with applied(NUMERICS):
        trainee, passes, images = begin(node)
        next(epochs(trainee, passes, images))
    tensors, _ = pack(trainee)
    names = {k.removeprefix("last/") for k in tensors if k.startswith("last/")}
    owned = {n for part in segment(1) | head(1) for n in trainee.net.state(part)}
    assert names == owned == set(trainee.best)


def test_exactly_the_trained_parts_take_gradients_and_are_optimized() -> None:
    for strategy in STRATEGIES:
        setting = Setting(data_identity(tiny_data()), Recipe(), NUMERICS, seed=42)
        program = STRATEGIES[strategy](4)
        for node in resolve(program, network("digits-cnn"), setting).nodes:
            net = network("digits-cnn").copy()
            trainee = enroll(node, net, True)
            wanted = {id(p) for part in node.trained for p in net.parameters_of(part)}
            assert {id(p) for p in net.parameters() if p.requires_grad} == wanted
            optimized = [id(p) for group in trainee.optimizer.param_groups for p in group["params"]]
            assert set(optimized) == wanted and len(optimized) == len(wanted)


def test_a_phase_leaves_no_gradient_on_frozen_parts() -> None:
    node = first_node(RECIPES["sgd"], "branch-wise")
    with applied(NUMERICS):
        trainee, passes, images = begin(node)
        next(epochs(trainee, passes, images))
    wanted = {id(p) for part in node.trained for p in trainee.net.parameters_of(part)}
    assert {id(p) for p in trainee.net.parameters() if p.grad is not None} == wanted


def reference_step(
    recipe: Recipe, weight: Tensor, gradients: list[Tensor], rates: list[float]
) -> Tensor:
    """SGD with momentum, Adam and AdamW as their papers write them, in float64."""
    w, velocity, second = weight.double(), torch.zeros(3).double(), torch.zeros(3).double()
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        g = gradient.double()
        if recipe.optimizer == "adamw":
            w = w * (1 - rate * recipe.weight_decay)
        else:
            g = g + recipe.weight_decay * w
        if recipe.optimizer == "sgd":
            velocity = recipe.momentum * velocity + g
            w = w - rate * (g + recipe.momentum * velocity if recipe.nesterov else velocity)
            continue
        velocity = 0.9 * velocity + 0.1 * g
        second = 0.999 * second + 0.001 * g * g
        w = w - rate * (velocity / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
    return w


@pytest.mark.parametrize("name", RECIPES)
def test_optimizers_do_what_their_papers_say(name: str) -> None:
    recipe = replace(RECIPES[name], weight_decay=0.05)
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    start = parameter.detach().clone()
    optimizer = engine.optimizer([parameter], recipe, fused=True)
    generator = torch.Generator().manual_seed(3)
    gradients = [torch.randn(3, generator=generator) for _ in range(4)]
    rates = [recipe.rate(n / 4) for n in range(4)]
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = gradient.clone()
        optimizer.step()
    expected = reference_step(recipe, start, gradients, rates)
    assert torch.allclose(parameter.detach().double(), expected, rtol=1e-5, atol=1e-7)


class Backwards(torch.nn.Module):
    """Registers its layers in another order than it runs them, with equal shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(8, 3)
        self.second = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.first = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.stem = torch.nn.Conv2d(1, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.second(self.first(self.stem(x)).relu()).relu().mean((2, 3)))


def test_a_checkpoint_fits_the_same_node_under_other_taps() -> None:
    """Taps change the order of the parameters and leave the key: moments go by name."""
    module = Backwards()
    kept: list[tuple[Trainee, Images]] = []
    for taps in ([], ["first"]):
        net = attach(module, taps, (1, 8, 8))
        setting = Setting(data_identity(tiny_data()), RECIPES["sgd"], NUMERICS, seed=42)
        node = resolve(STRATEGIES["baseline"](net.exits), net, setting).nodes[0]
        weights = Weights(net, node.seed, {}.__getitem__, CPU)
        trainee = enroll(node, weights.network(node.start), NUMERICS.fused_optimizer)
        images = Images(tiny_data(), CPU)
        if not kept:
            next(fit([trainee], Plain(images, [node], weights, 64), images, 16))
        else:
            unpack(trainee, *pack(kept[0][0]))
        kept.append((trainee, images))
    (one, _), (other, _) = kept
    assert one.node.key == other.node.key
    assert engine._names(one) != engine._names(other)

    def moments(trainee: Trainee) -> dict[str, Tensor]:
        state = trainee.optimizer.state_dict()["state"]
        return {n: state[i]["momentum_buffer"] for i, n in enumerate(engine._names(trainee))}

    mine, theirs = moments(one), moments(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
