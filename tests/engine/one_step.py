"""One step of the small network, by the engine, to be compared with what is written out. K is 4."""

from dataclasses import replace

import torch
from fit_runs import begin, setting
from torch import Tensor

from offramp.engine import auxiliary
from offramp.engine.passes import Plain
from offramp.engine.resolve import Node, resolve
from offramp.engine.settings import applied
from offramp.engine.trainee import Trainee, loss_of, train_mode
from offramp.nets.network import ExitNetwork, inside
from offramp.parts import heads, segments
from offramp.phase import Program
from support import NUMERICS, network

K = 4
ALL = segments(1, K) | heads(1, K)
Gradients = dict[str, Tensor]


def every_weight(net: ExitNetwork | None = None) -> dict[str, Tensor]:
    """Of all parts of a network, drawn ones by default: what a phase may have left of it."""
    drawn = inside(net or network("digits-cnn"))
    return {name: tensor for part in ALL for name, tensor in drawn.state(part).items()}


def node_of(program: Program, ranks: int = 1) -> Node:
    """Its last phase."""
    shared = replace(setting(), numerics=replace(NUMERICS, ranks=ranks))
    return resolve(program, network("digits-cnn"), shared).nodes[-1]


def first_step(node: Node) -> tuple[Trainee, Plain, Tensor, Tensor]:
    """A trainee with all drawn weights, its passes, 16 images and their labels."""
    weights = every_weight(network("digits-cnn").carrying(node.phase.carry))
    trainee, passes, images = begin(node, weights_of=dict.fromkeys(node.needs, weights))
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():  # what is added of the answer before begins at zero, which would hide it
        for head in inside(trainee.net).heads:
            for parameter in () if head.before is None else head.before.parameters():
                parameter.normal_(generator=chance)
    train_mode(trainee, True)
    rows = torch.arange(16)
    (pixels,) = images.reads("train", [rows])
    return trainee, passes, pixels, images.labels("train", rows)


def gradients_of(trainee: Trainee, value: Tensor) -> tuple[float, Gradients]:
    """Of the network and of the adapters, by name."""
    value.backward()  # type: ignore[no-untyped-call]
    named = dict(trainee.net.named_parameters()) | auxiliary.adapter_state(trainee.adapters, trainee.net)
    return value.item(), {name: p.grad for name, p in named.items() if p.grad is not None}


def by_the_engine(node: Node) -> tuple[float, Gradients]:
    with applied(NUMERICS):
        trainee, passes, pixels, labels = first_step(node)
        mine, theirs = passes.answers(node, trainee.net, pixels)
        return gradients_of(trainee, loss_of(trainee, mine, theirs, labels, None))


def close(some: Gradients, others: Gradients) -> bool:
    assert some.keys() == others.keys()
    scale = max(float(g.abs().max()) for g in others.values())
    return all(torch.allclose(some[n], others[n], rtol=1e-4, atol=1e-6 * scale) for n in some)


def ce(z: Tensor, y: Tensor) -> Tensor:
    """[B]."""
    return -(z - z.exp().sum(1, keepdim=True).log()).gather(1, y[:, None])[:, 0]


def kl(z: Tensor, target: Tensor, t: float) -> Tensor:
    """[B], τ² times."""
    p = (target.detach() / t).softmax(1)
    return t * t * (p * (p.log() - (z / t).softmax(1).log())).sum(1)
