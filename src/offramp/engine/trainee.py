"""One node while it trains: its network, optimizer and record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from offramp.engine.losses import objective
from offramp.engine.passes import Logits
from offramp.engine.resolve import Node
from offramp.engine.tally import Tally
from offramp.meters import Usage
from offramp.nets.network import ExitNetwork
from offramp.recipe import Recipe, best_epoch

OBJECTIVE = ""  # the exit under which a history row stands that speaks of the phase's own loss


@dataclass(frozen=True)
class Row:
    """One number of a history: `split` is train (running, train mode), validation, or train-eval (the
    training split in eval mode); `exit` is the place of the exit, or OBJECTIVE."""

    epoch: int
    split: str
    exit: str
    metric: str
    value: float


@dataclass
class Trainee:
    """Mutable on purpose: this is the state of a training run, and what a checkpoint holds.

    epoch: finished epochs.  best: the trained parts at the lowest validation loss so far.
    validation_losses: of the phase's own loss, one a finished epoch.  epoch_seconds: what each of those
    took, validation and waiting for images included.  frozen_macs: that were run for
    it below its cuts.  usage: memory, power and energy of preparation and epochs.  resumed: whether a
    checkpoint was read.  tally: of the epoch at hand; None between two.
    """

    node: Node
    net: ExitNetwork
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    rows: list[Row] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    validation_losses: list[float] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)
    frozen_macs: float = 0.0
    usage: Usage = field(default_factory=Usage)
    resumed: bool = False
    tally: Tally | None = None

    @property
    def steps(self) -> int:
        """Of the epoch at hand, that are done."""
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


def enroll(node: Node, net: ExitNetwork, numerics_fused: bool) -> Trainee:
    """A trainee at its start: exactly the trained parts take gradients, in the optimizer's order of
    parts; all else is frozen and in eval mode."""
    net.requires_grad_(False)
    net.eval()
    parameters = [p for part in sorted(node.trained) for p in net.parameters_of(part)]
    for parameter in parameters:
        parameter.requires_grad_(True)
    return Trainee(node, net, optimizer(parameters, node.recipe, numerics_fused))


def optimizer(
    parameters: list[torch.nn.Parameter], recipe: Recipe, fused: bool
) -> torch.optim.Optimizer:
    """The recipe's optimizer; its rate is set before every step."""
    rate = recipe.rate(0.0)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=fused,
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=rate, weight_decay=recipe.weight_decay, fused=fused)


def train_mode(trainee: Trainee, mode: bool) -> None:
    """Train or eval mode of the trained parts; frozen parts stay in eval mode."""
    for part in trainee.node.trained:
        trainee.net.train_part(part, mode)


def step(
    trainee: Trainee,
    logits: Logits,
    teacher: Logits,
    labels: Tensor,
    progress: float,
    class_weights: Tensor | None = None,
) -> Tensor:
    """One update; returns the loss, detached, still on the device. progress: in epochs.
    class_weights: [C]."""
    smoothing = trainee.node.recipe.label_smoothing
    loss = objective(trainee.node.terms, logits, teacher, labels, class_weights, smoothing)
    for group in trainee.optimizer.param_groups:
        group["lr"] = trainee.node.recipe.rate(progress)
    trainee.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    trainee.optimizer.step()
    return loss.detach()


def trained_state(trainee: Trainee) -> dict[str, Tensor]:
    """A copy of what the node trains: parameters and buffers by their original names."""
    parts = sorted(trainee.node.trained)
    return {
        name: tensor.detach().clone(memory_format=torch.preserve_format)
        for part in parts
        for name, tensor in trainee.net.state(part).items()
    }


def restore(trainee: Trainee, state: Mapping[str, Tensor]) -> None:
    """Put a `trained_state` back."""
    with torch.no_grad():
        for part in trainee.node.trained:
            for name, tensor in trainee.net.state(part).items():
                tensor.copy_(state[name])


def pack(trainee: Trainee) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A checkpoint: tensors and JSON. With it `unpack` goes on as if nothing had happened."""
    tensors = {f"last/{k}": t for k, t in trained_state(trainee).items()}
    tensors |= {f"best/{k}": t for k, t in trainee.best.items()}
    names = _names(trainee)
    for index, fields in trainee.optimizer.state_dict()["state"].items():
        for moment, value in fields.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{names[index]}/{moment}"] = value
    state = {
        "epoch": trainee.epoch,
        "seconds": trainee.seconds,
        "epoch_seconds": trainee.epoch_seconds,
        "frozen_macs": trainee.frozen_macs,
        "usage": asdict(trainee.usage),
        "rows": [[r.epoch, r.split, r.exit, r.metric, r.value] for r in trainee.rows],
    }
    if trainee.tally is not None:
        sums, state["tally"] = trainee.tally.pack()
        tensors |= {f"tally/{name}": value for name, value in sums.items()}
    return tensors, state


def _names(trainee: Trainee) -> list[str]:
    """Names of the optimizer's parameters, in its order: the order depends on where a network is cut,
    the names do not."""
    parts = sorted(trainee.node.trained)
    names = {id(t): name for part in parts for name, t in trainee.net.state(part).items()}
    return [names[id(p)] for p in trainee.optimizer.param_groups[0]["params"]]


def unpack(trainee: Trainee, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Bring a freshly enrolled trainee to where `pack` left it."""

    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}

    restore(trainee, under("last/"))
    trainee.best = under("best/")
    fields: dict[int, dict[str, Tensor]] = {}
    parameters = trainee.optimizer.param_groups[0]["params"]
    numbers = {name: index for index, name in enumerate(_names(trainee))}
    for entry, tensor in under("optimizer/").items():
        name, _, moment = entry.rpartition("/")
        parameter = parameters[numbers[name]]
        # Fused kernels walk memory in order: a moment must lie in memory as its parameter does.
        like = parameter.detach() if tensor.shape == parameter.shape else tensor
        fields.setdefault(numbers[name], {})[moment] = torch.empty_like(like).copy_(tensor)
    groups = trainee.optimizer.state_dict()["param_groups"]
    trainee.optimizer.load_state_dict({"state": fields, "param_groups": groups})
    trainee.epoch = int(state["epoch"])
    trainee.seconds = dict(state["seconds"])
    trainee.epoch_seconds = list(state.get("epoch_seconds", []))
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
