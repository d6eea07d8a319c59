"""A checkpoint holds all there is to a training run, whatever the optimizer."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fit_runs import begin, equal, interrupted_run, program_nodes, resumed, setting, to_its_end
from one_step import every_weight
from torch import Tensor

from longer import long
from offramp.engine import trainee as engine
from offramp.engine.fit import Diverged, EpochReport, fit
from offramp.engine.passes import Images, Plain
from offramp.engine.resolve import Node, resolve
from offramp.engine.settings import applied
from offramp.engine.trainee import Trainee, enroll, outcome, pack, trained_state, unpack
from offramp.engine.weights import Weights
from offramp.nets import attach
from offramp.nets.network import inside
from offramp.parts import head, heads, segment, segments
from offramp.phase import CE, Phase
from offramp.recipe import Recipe
from offramp.store.store import Store
from offramp.strategies import STRATEGIES
from refusal import refuses
from support import CPU, NUMERICS, network, tiny_data

RECIPES = {
    "sgd": Recipe(epochs=4, batch_size=16, learning_rate=0.02, weight_decay=1e-3),
    "sgd without momentum": Recipe(epochs=4, batch_size=16, learning_rate=0.02, momentum=0.0),
    "nesterov": Recipe(epochs=4, batch_size=16, learning_rate=0.02, nesterov=True),
    "adam": Recipe(epochs=4, batch_size=16, optimizer="adam", learning_rate=1e-3),
    "adamw": Recipe(
        epochs=4, batch_size=16, optimizer="adamw", learning_rate=1e-3, weight_decay=0.1, select="best"
    ),
    "decoupled": Recipe(
        **{"epochs": 4, "batch_size": 16, "learning_rate": 0.02, "nesterov": True, "momentum": 0.85},
        **{"weight_decay": 0.05, "decoupled_decay": True, "norm_weight_decay": 0.0},
        norm_bias_rate_scale=4.0,
    ),
    "ema": Recipe(epochs=4, batch_size=16, learning_rate=0.02, average="ema", average_every=1),
    "lookahead": Recipe(
        **{"epochs": 4, "batch_size": 8, "learning_rate": 0.02, "schedule": "triangular"},
        **{"average": "lookahead", "average_every": 3, "average_ramp": 3.0, "select": "best"},
    ),
    "cosine": Recipe(epochs=4, batch_size=16, learning_rate=0.02, schedule="cosine", warmup_epochs=1.0),
}


def first_node(recipe: Recipe, strategy: str = "joint") -> Node:
    return program_nodes(strategy, recipe)[0]


def epochs(trainee: Trainee, passes: Plain, images: Images) -> Iterator[list[EpochReport | Diverged]]:
    return fit([trainee], passes, images, trainee.node.recipe.batch_size)


def after_an_epoch(node: Node) -> Trainee:
    with applied(NUMERICS):
        trainee, passes, images = begin(node)
        next(epochs(trainee, passes, images))
    return trainee


PLAINER = ("sgd without momentum", "nesterov", "adamw", "ema", "cosine")
"""What the others have with more: decoupled decay, averages, a schedule."""


@pytest.mark.parametrize(
    ("name", "after"),
    [
        *((name, 3) for name in RECIPES if name not in PLAINER),
        *long(*((name, 3) for name in PLAINER), *((name, 1) for name in RECIPES)),
    ],
)
def test_a_run_goes_on_from_a_checkpoint_to_the_same_bits(name: str, after: int, tmp_path: Path) -> None:
    node = first_node(RECIPES[name])
    with applied(NUMERICS):
        weights, history = to_its_end(*begin(node))
        other, other_history = interrupted_run(node, after, Store(tmp_path))
    assert equal(weights, other) and history == other_history


@pytest.mark.parametrize(("carry", "each"), [("hidden", 7), *long(("learned", 1))])
def test_what_heads_learn_to_carry_goes_on_to_the_same_bits(
    carry: Any, each: int, tmp_path: Path
) -> None:
    everything, loss = segments(1, 4) | heads(1, 4), tuple(CE(k) for k in range(1, 5))
    program = (Phase("all", everything, loss, carry=carry),)
    (node,) = resolve(program, network("digits-cnn"), setting(RECIPES["adam"])).nodes
    with applied(NUMERICS):
        weights, history = to_its_end(*begin(node))
        other, other_history = interrupted_run(node, 1, Store(tmp_path))
    added = [name for name in weights if ".before." in name]
    assert len(added) == 2 * each and all(weights[name].any() for name in added)
    assert equal(weights, other) and history == other_history


@pytest.mark.parametrize("name", ["sgd", "adam", "lookahead", *long("adamw", "ema")])
def test_a_checkpoint_without_moments_does_not_do(name: str, tmp_path: Path) -> None:
    """The control: what the optimizer remembers matters to the bits, and so does the average."""
    node = first_node(RECIPES[name])
    lost = "optimizer/" if node.recipe.average == "none" else "average/"
    with applied(NUMERICS):
        weights, _ = to_its_end(*begin(node))
        assert not equal(weights, interrupted_run(node, 1, Store(tmp_path), lost, 1.01)[0])


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_moments_lie_in_memory_as_their_parameters_do(name: str, tmp_path: Path) -> None:
    """Fused kernels walk both in memory order, and files hold tensors contiguously."""
    node = first_node(RECIPES[name])
    store = Store(tmp_path)
    store.write_checkpoint(node.key, *pack(after_an_epoch(node)))
    again, _, _ = resumed(node, store)
    shuffled = 0
    for parameter, fields in again.optimizer.state.items():
        for value in fields.values():
            if value is not None and value.dim():
                assert value.stride() == parameter.stride()
                shuffled += not value.is_contiguous()
    assert shuffled, "no parameter of this network is channels-last, so this shows nothing"


def test_a_checkpoint_of_a_phase_that_stopped_early_names_no_more_epochs() -> None:
    """Trackers got its last epoch before they could hear that it is over, and never ended its run."""
    trainee, _, _ = begin(first_node(replace(RECIPES["adam"], epochs=9, patience=1)))
    trainee.epoch = 2
    for losses, epochs in (([2.0, 1.0], 9), ([1.0, 2.0], 2)):
        trainee.validation_losses = losses
        assert pack(trainee)[1]["epochs"] == epochs


def test_a_checkpoint_has_only_what_trains() -> None:
    node = first_node(RECIPES["adam"], "branch-wise")
    trainee = after_an_epoch(node)
    tensors, _ = pack(trainee)
    names = {k.removeprefix("last/") for k in tensors if k.startswith("last/")}
    owned = {n for part in segment(1) | head(1) for n in inside(trainee.net).state(part)}
    assert names == owned == set(trainee.best)


def test_exactly_the_trained_parts_take_gradients_and_are_optimized() -> None:
    for strategy in STRATEGIES:
        for node in program_nodes(strategy, Recipe()):
            trainee, *_ = begin(node, weights_of=dict.fromkeys(node.needs, every_weight()))
            net = trainee.net
            trained = {id(p) for part in node.trained for p in inside(net).parameters_of(part)}
            assert {id(p) for p in net.parameters() if p.requires_grad} == trained
            trained |= {id(p) for layer in trainee.adapters.values() for p in layer.parameters()}
            optimized = [id(p) for group in trainee.optimizer.param_groups for p in group["params"]]
            assert set(optimized) == trained and len(optimized) == len(trained)


def test_a_phase_leaves_no_gradient_on_frozen_parts() -> None:
    node = first_node(RECIPES["sgd"], "branch-wise")
    trainee = after_an_epoch(node)
    trained = {id(p) for part in node.trained for p in inside(trainee.net).parameters_of(part)}
    assert {id(p) for p in trainee.net.parameters() if p.grad is not None} == trained


def reference_step(
    recipe: Recipe, weight: Tensor, gradients: list[Tensor], rates: list[float]
) -> Tensor:
    """SGD with momentum, Adam and AdamW as their papers write them, in float64."""
    w, velocity, second = weight.double(), torch.zeros(3).double(), torch.zeros(3).double()
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        g = gradient.double()
        if recipe.optimizer == "adamw" or recipe.decoupled_decay:
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
    """A bare parameter is no normalization's; those are looked at below."""
    recipe = replace(RECIPES[name], weight_decay=0.05)
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    start = parameter.detach().clone()
    (group,) = engine.groups({parameter: 1.0}, torch.nn.Identity(), recipe)
    optimizer = engine.optimizer([group], recipe, fused=True)
    generator = torch.Generator().manual_seed(3)
    gradients = [torch.randn(3, generator=generator) for _ in range(4)]
    rates = [recipe.rate(n / 4) for n in range(4)]
    for gradient, rate in zip(gradients, rates, strict=True):
        parameter.grad = gradient.clone()
        engine.update(optimizer, rate)
    expected = reference_step(recipe, start, gradients, rates)
    assert torch.allclose(parameter.detach().double(), expected, rtol=1e-5, atol=1e-7)


def test_normalizations_have_a_decay_and_biases_a_rate_of_their_own() -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.LayerNorm(3))
    recipe = Recipe(learning_rate=0.1, weight_decay=0.5, norm_weight_decay=0.25, norm_bias_rate_scale=4)
    recipe = replace(recipe, momentum=0, decoupled_decay=True)
    for parameter in layers.parameters():
        torch.nn.init.ones_(parameter)
        parameter.grad = torch.ones_like(parameter)
    every = dict.fromkeys(layers.parameters(), 1.0)
    optimizer = engine.optimizer(engine.groups(every, layers, recipe), recipe, fused=True)
    engine.update(optimizer, 0.1)
    weights = {
        name: float(parameter.detach().flatten()[0]) for name, parameter in layers.named_parameters()
    }
    for number, decay, rate in ((0, 0.5, 0.1), (1, 0.25, 0.4), (2, 0.25, 0.4)):
        assert weights[f"{number}.weight"] == pytest.approx((1 - 0.1 * decay) - 0.1)
        assert weights[f"{number}.bias"] == pytest.approx((1 - rate * decay) - rate)


@pytest.mark.parametrize("kind", ["ema", "lookahead"])
def test_what_is_handed_on_is_the_average_of_what_trained(kind: Any) -> None:
    """Against the formula, in float64, from the weights after each step."""
    every, decay, ramp = 2, 0.8, 2.0
    recipe = replace(RECIPES["ema"], average=kind, average_every=every, average_decay=decay, epochs=2)
    recipe = replace(recipe, average_ramp=ramp, learning_rate=0.1)
    trainee, passes, images = begin(first_node(recipe))
    slow = {k: t.double() for k, t in trained_state(trainee).items()}
    steps, done, worst, apart = 2 * -(-len(tiny_data().train) // 16), 0, 0.0, 0.0
    original = engine.update

    def watched(optimizer: torch.optim.Optimizer, rate: float) -> None:
        nonlocal done, apart
        original(optimizer, rate)
        done += 1
        if done % every == 0:
            share = decay * (done / steps) ** ramp
            for name, fast in trained_state(trainee).items():
                mixed = share * slow[name] + (1 - share) * fast.double()
                slow[name] = mixed if fast.is_floating_point() else fast.double()
                apart = max(apart, float((fast - slow[name]).abs().max()))

    engine.update = watched
    try:
        with applied(NUMERICS):
            for _ in epochs(trainee, passes, images):
                for name, average in outcome(trainee).items():
                    scale = float(slow[name].abs().max()) + 1e-6
                    worst = max(worst, float((average.double() - slow[name]).abs().max()) / scale)
    finally:
        engine.update = original
    assert done == steps and worst < 1e-5
    assert apart > 1e-4, "the average is what trained last, so this shows nothing"


@pytest.mark.parametrize("kind", ["ema", "lookahead"])
def test_an_average_that_no_step_updates_is_refused(kind: Any) -> None:
    """What the phase began with would be handed on."""
    steps = -(-len(tiny_data().train) // 16)
    recipe = replace(RECIPES["ema"], average=kind, average_every=steps, epochs=1)
    trainee, passes, images = begin(first_node(recipe))
    before = outcome(trainee)
    with applied(NUMERICS):
        list(epochs(trainee, passes, images))
    assert any(not torch.equal(before[name], average) for name, average in outcome(trainee).items())
    late = begin(first_node(replace(recipe, average_every=steps + 1)))
    with applied(NUMERICS):
        refuses(f"average_every to {steps} or less", list, epochs(*late))
    longer = replace(recipe, average_every=steps + 1, epochs=2)  # judged after the first epoch too
    for judged in (replace(longer, patience=1), replace(longer, select="best")):
        late = begin(first_node(judged))
        with applied(NUMERICS):
            refuses(f"{steps} steps an epoch and updates its average", list, epochs(*late))


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
    runs: list[tuple[Trainee, Images]] = []
    for taps in ([], ["first"]):
        net = attach(module, taps, (1, 8, 8))
        (node,) = resolve(STRATEGIES["baseline"](net.exits), net, setting(RECIPES["sgd"])).nodes
        weights = Weights(net, node.seed, {}.__getitem__, CPU)
        trainee = enroll(node, weights, NUMERICS.fused_optimizer)
        images = Images(tiny_data(), CPU)
        if not runs:
            next(fit([trainee], Plain(images, [node], weights, 64), images, 16))
        else:
            unpack(trainee, *pack(runs[0][0]))
        runs.append((trainee, images))
    (first, _), (second, _) = runs
    assert first.node.key == second.node.key
    assert engine._names(first) != engine._names(second)

    def moments(trainee: Trainee) -> dict[str, Tensor]:
        state = trainee.optimizer.state_dict()["state"]
        return {n: state[i]["momentum_buffer"] for i, n in enumerate(engine._names(trainee))}

    mine, theirs = moments(first), moments(second)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
