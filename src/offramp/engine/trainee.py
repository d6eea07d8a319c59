"""One node while it trains: its network, optimizer and record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import time
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from offramp.engine.auxiliary import (
    Adapters,
    adapter_state,
    drawn_adapters,
    phase_loss,
)
from offramp.engine.losses import LossContext, gating
from offramp.engine.passes import ExitAnswers
from offramp.engine.ranks import Ranks
from offramp.engine.resolve import Node
from offramp.engine.tally import Tally, measured
from offramp.engine.weights import Weights
from offramp.labels import several
from offramp.meters.meter import Usage
from offramp.nets.network import ExitNetwork, gated, inside
from offramp.parts import Part
from offramp.phase import Phase
from offramp.process import uninterrupted
from offramp.recipe import Recipe, best_epoch, finished

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

OBJECTIVE = ""  # in place of an exit, in rows of a history that are of the phase's own loss


@dataclass(frozen=True)
class Row:
    """One number of a history."""

    epoch: int
    # train (running, train mode), validation, or train-eval (the training split in eval mode)
    split: str
    exit: str  # the place of the exit, or OBJECTIVE
    metric: str
    value: float


@dataclass
class Trainee:
    """Mutable on purpose: this is the state of a training run, and what a checkpoint holds."""

    node: Node
    net: ExitNetwork
    optimizer: torch.optim.Optimizer
    epoch: int = 0  # finished epochs
    rows: list[Row] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    # the trained parts at the lowest validation loss so far
    best: dict[str, Tensor] = field(default_factory=dict)
    # of the phase's own loss, one a finished epoch
    validation_losses: list[float] = field(default_factory=list)
    # of each of those, validation and waiting for images included
    epoch_seconds: list[float] = field(default_factory=list)
    frozen_macs: float = 0.0  # MACs of frozen layers that were run for it
    usage: Usage = field(default_factory=Usage)  # memory, power and energy of preparation and epochs
    resumed: bool = False  # whether a checkpoint was read
    tally: Tally | None = None  # of the current epoch; None between two epochs
    # of the trained parts, where the recipe has one; the network holds what trains
    average: dict[str, Tensor] = field(default_factory=dict)
    # of the loss between features; they train and are averaged as the parts are
    adapters: Adapters = field(default_factory=dict)
    # in seconds since 1970; None where a checkpoint does not say
    began: float | None = field(default_factory=time)

    @property
    def steps(self) -> int:
        """Steps of the current epoch that are done."""
        return 0 if self.tally is None else self.tally.steps

    def spend(self, kind: str, seconds: float) -> None:
        """Account time: `preparation`, `train`, `validation`, `data` (of both: waiting for images),
        `checkpoint` or `evaluation`."""
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds

    @property
    def best_epoch(self) -> int:
        """Counted from 1."""
        return best_epoch(self.validation_losses) + 1

    @property
    def selected_epoch(self) -> int:
        return self.best_epoch if self.node.recipe.selects_best else self.epoch


def enroll(node: Node, weights: Weights, fused: bool) -> Trainee:
    """A trainee at its start: exactly the trained parts and adapters take gradients, all else is frozen
    and in eval mode."""
    net = weights.network(node.start, node.phase.carry)
    net = gated(net) if node.phase.gated else net
    net.requires_grad_(False)
    net.eval()
    parameters = rated(node.phase, inside(net).parameters_of)
    for parameter in parameters:
        parameter.requires_grad_(True)
    layers = drawn_adapters(node.terms, node.seed, net)
    parameters |= {parameter: 1.0 for layer in layers.values() for parameter in layer.parameters()}
    treated = groups(parameters, net, node.recipe)
    trainee = Trainee(node, net, optimizer(treated, node.recipe, fused), adapters=layers)
    if node.recipe.average != "none":
        trainee.average = trained_state(trainee)
    return trainee


def rated(
    phase: Phase, parameters_of: Callable[[Part], list[nn.Parameter]]
) -> dict[nn.Parameter, float]:
    """The parameters that a phase trains, each with the factor of its part on the recipe's rate."""
    rates = phase.settings.get("rates", {})
    return {
        parameter: rates.get(part, 1.0)
        for part in sorted(phase.trained)
        for parameter in parameters_of(part)
    }


def groups(
    parameters: Mapping[nn.Parameter, float], net: nn.Module, recipe: Recipe
) -> list[dict[str, Any]]:
    """The optimizer's groups: parameters that the phase and the recipe treat alike. parameters: each
    with the factor of its part on the recipe's rate.

    Returns:
        Groups with `rate_scale`, of the recipe's rate, and `decay`, what a step of decoupled decay
        takes, times the rate.
    """
    norms = [module for module in net.modules() if isinstance(module, NORMS)]
    of_norms = {id(p) for norm in norms for p in norm.parameters(recurse=False)}
    biases = {id(norm.bias) for norm in norms if getattr(norm, "bias", None) is not None}
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, scale in parameters.items():
        decay = recipe.weight_decay
        if id(parameter) in of_norms and recipe.norm_weight_decay is not None:
            decay = recipe.norm_weight_decay
        if id(parameter) in biases:
            scale *= recipe.norm_bias_rate_scale
        members.setdefault((decay, scale), []).append(parameter)
    # PyTorch's SGD adds the decay to the gradient, and so to the momentum; `update` does it apart.
    apart = recipe.decoupled_decay
    return [
        {
            "params": alike,
            "weight_decay": 0.0 if apart else decay,
            "decay": decay if apart else 0.0,
            "rate_scale": scale,
        }
        for (decay, scale), alike in members.items()
    ]


def optimizer(parameters: list[dict[str, Any]], recipe: Recipe, fused: bool) -> torch.optim.Optimizer:
    """The recipe's optimizer over `groups`; its rate is set before every step."""
    common: dict[str, Any] = {
        "lr": recipe.rate(0.0),
        "weight_decay": recipe.weight_decay,
        "fused": fused,
    }
    match recipe.optimizer:
        case "sgd":
            momentum, nesterov = recipe.momentum, recipe.nesterov
            return torch.optim.SGD(parameters, momentum=momentum, nesterov=nesterov, **common)
        case "adam":
            return torch.optim.Adam(parameters, **common)
        case "adamw":
            return torch.optim.AdamW(parameters, **common)
        case _:
            assert_never(recipe.optimizer)


def train_mode(trainee: Trainee, mode: bool) -> None:
    """Train or eval mode of the trained parts; frozen parts stay in eval mode."""
    for part in trainee.node.trained:
        inside(trainee.net).train_part(part, mode)


def _network_state(trainee: Trainee) -> dict[str, Tensor]:
    """Parameters and buffers of the network that the node trains, by their original names."""
    parts = (inside(trainee.net).state(part) for part in sorted(trainee.node.trained))
    return {name: tensor for named in parts for name, tensor in named.items()}


def loss_of(
    trainee: Trainee,
    mine: ExitAnswers,
    theirs: ExitAnswers,
    labels: Tensor,
    class_weights: Tensor | None,
    smoothing: float = 0.0,
) -> Tensor:
    """The node's loss, a scalar: see `objective`."""
    node = trainee.node
    gates = gating(trainee.net, mine.logits) if node.phase.gated else None
    context = LossContext(class_weights, smoothing, gating=gates, several=several(labels))
    return phase_loss(node.phase, trainee.adapters, mine, theirs, labels, context)


@dataclass(frozen=True)
class Step:
    """One of an epoch's `steps`, by its number from 0: the gradients of `ranks` are summed, `weight`
    being that of this rank's part of the batch."""

    number: int
    steps: int
    ranks: Ranks
    weight: float


def step(
    trainee: Trainee,
    mine: ExitAnswers,
    theirs: ExitAnswers,
    labels: Tensor,
    class_weights: Tensor | None,
    at: Step,
) -> Tensor:
    """One update by the gradients of all ranks. mine, theirs, labels: of this rank's part of the batch;
    class_weights: [C]; at: where in the epoch.

    Returns:
        The sums of `measured` over the whole batch, still on the device.
    """
    node = trainee.node
    loss = loss_of(trainee, mine, theirs, labels, class_weights, node.recipe.label_smoothing)
    # None, not zeros: zeros would still be moved by momentum and weight decay.
    trainee.optimizer.zero_grad(set_to_none=True)
    (loss if at.ranks.count == 1 else loss * at.weight).backward()  # type: ignore[no-untyped-call]
    # A rank without rows has run one that counts nothing.
    sums = measured(node.exits, loss.detach(), mine.logits, labels) * (at.weight > 0)
    gradients = [p.grad for p in _parameters(trainee) if p.grad is not None]
    sums = at.ranks.sum_(gradients, sums)
    update(trainee.optimizer, trainee.node.recipe.rate(trainee.epoch + at.number / at.steps))
    if trainee.average:
        _follow(trainee, trainee.epoch * at.steps + at.number + 1, at.steps)
    return sums


@torch.no_grad()
def update(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """A step of an optimizer of `groups` at the recipe's rate, by the gradients at hand."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_scale"]
        if group["decay"]:
            torch._foreach_mul_(group["params"], 1 - group["lr"] * group["decay"])
    optimizer.step()


@torch.no_grad()
def _follow(trainee: Trainee, done: int, steps: int) -> None:
    """The average, after `done` steps in all, `steps` an epoch."""
    recipe = trainee.node.recipe
    if done % recipe.average_every:
        return
    decay = recipe.decay_of_average(done / steps)
    for name, tensor in _live(trainee):
        average = trainee.average[name]
        if tensor.is_floating_point():
            average.lerp_(tensor, 1 - decay)
        else:  # a counter of batches
            average.copy_(tensor)
        match recipe.average:
            case "lookahead":
                tensor.copy_(average)
            case "ema" | "none":
                pass
            case _:
                assert_never(recipe.average)


def _live(trainee: Trainee) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers that the node trains, by their original names; then adapters."""
    yield from _network_state(trainee).items()
    yield from adapter_state(trainee.adapters, trainee.net).items()


def trained_state(trainee: Trainee) -> dict[str, Tensor]:
    """A copy of what the node trains."""
    return _copies(dict(_live(trainee)))


def outcome(trainee: Trainee) -> dict[str, Tensor]:
    """A copy of what is validated: the average of the recipe, or what trains."""
    return _copies(trainee.average) if trainee.average else trained_state(trainee)


def handed_on(trainee: Trainee, outcome: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of an `outcome`, what the network keeps."""
    return {name: outcome[name] for name in _network_state(trainee)}


def _copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.detach().clone(memory_format=torch.preserve_format)
        for name, tensor in state.items()
    }


@torch.no_grad()
def restore(trainee: Trainee, state: Mapping[str, Tensor]) -> None:
    """Put a `trained_state` back."""
    for name, tensor in _live(trainee):
        tensor.copy_(state[name])


@contextmanager
def averaged(trainees: Sequence[Trainee]) -> Iterator[None]:
    """Their networks with the averages in place of what trains, while the block runs."""
    training = [(t, trained_state(t)) for t in trainees if t.average]
    try:
        with uninterrupted():
            for trainee, _ in training:
                restore(trainee, trainee.average)
        yield
    finally:
        with uninterrupted():
            for trainee, state in training:
                restore(trainee, state)


def pack(trainee: Trainee) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A checkpoint: tensors and JSON. With it `unpack` goes on as if nothing had happened."""
    named: dict[str, Mapping[str, Tensor]] = {"last": trained_state(trainee), "best": trainee.best}
    named["average"] = trainee.average
    # By name: the optimizer's numbers depend on where the network is cut.
    names, recipe = _names(trainee), trainee.node.recipe
    over = finished(trainee.validation_losses, recipe)
    for index, fields in trainee.optimizer.state_dict()["state"].items():
        moments = {moment: value for moment, value in fields.items() if isinstance(value, Tensor)}
        named[f"optimizer/{names[index]}"] = moments
    state = {
        "phase": trainee.node.name,
        # One that stopped early has no more: its last epoch goes to trackers when it is sealed.
        "epochs": trainee.epoch if over else recipe.epochs,
        "epoch": trainee.epoch,
        "seconds": trainee.seconds,
        "epoch_seconds": trainee.epoch_seconds,
        "began": trainee.began,
        "frozen_macs": trainee.frozen_macs,
        "usage": asdict(trainee.usage),
        "rows": [[r.epoch, r.split, r.exit, r.metric, r.value] for r in trainee.rows],
    }
    if trainee.tally is not None:
        named["tally"], state["tally"] = trainee.tally.pack()
    tensors = {f"{where}/{name}": t for where, group in named.items() for name, t in group.items()}
    return tensors, state


def _names(trainee: Trainee) -> list[str]:
    """Names of the optimizer's parameters, in its order: the order depends on where a network is cut,
    the names do not."""
    names = {id(t): name for name, t in _live(trainee)}
    return [names[id(p)] for p in _parameters(trainee)]


def _parameters(trainee: Trainee) -> list[nn.Parameter]:
    """The optimizer's parameters, in its order."""
    return [p for group in trainee.optimizer.param_groups for p in group["params"]]


def _laid_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A copy on the parameter's device that lies in memory as it does: fused kernels walk memory in
    order, and sums round by it."""
    return torch.empty_like(parameter.detach()).copy_(tensor)


def unpack(trainee: Trainee, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Bring a freshly enrolled trainee to where `pack` left it.

    Raises:
        Exception: Whatever comes up where that was another phase; the trainee is then worth nothing.
    """

    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}

    shapes = {name: tensor.shape for name, tensor in _live(trainee)}
    last, trainee.best = under("last/"), under("best/")
    for each in (last, trainee.best if state["epoch"] else last):
        if {name: tensor.shape for name, tensor in each.items()} != shapes:
            raise ValueError("it holds weights of another network")
    restore(trainee, last)
    for name, average in trainee.average.items():
        average.copy_(tensors[f"average/{name}"])
    fields: dict[int, dict[str, Tensor]] = {}
    parameters = _parameters(trainee)
    numbers = {name: index for index, name in enumerate(_names(trainee))}
    for entry, tensor in under("optimizer/").items():
        name, _, moment = entry.rpartition("/")
        parameter = parameters[numbers[name]]
        like = tensor.shape == parameter.shape  # a step counter is a scalar
        fields.setdefault(numbers[name], {})[moment] = (
            _laid_as(parameter, tensor) if like else tensor.clone()
        )
    groups = trainee.optimizer.state_dict()["param_groups"]
    trainee.optimizer.load_state_dict({"state": fields, "param_groups": groups})
    trainee.epoch = int(state["epoch"])
    trainee.seconds = dict(state["seconds"])
    trainee.epoch_seconds = list(state.get("epoch_seconds", []))
    trainee.began = state.get("began")
    trainee.frozen_macs = float(state.get("frozen_macs", 0))
    trainee.usage = Usage(**state.get("usage", {}))
    trainee.resumed = True
    if "tally" in state:
        sums, device = under("tally/"), parameters[0].device
        trainee.tally = Tally.unpack(trainee.node.exits, sums, state["tally"], device)
    trainee.rows = [Row(*row) for row in state["rows"]]
    trainee.validation_losses = [
        row.value for row in trainee.rows if (row.split, row.exit) == ("validation", OBJECTIVE)
    ]
    if len(trainee.validation_losses) != trainee.epoch:
        raise ValueError("its history is of other epochs")
