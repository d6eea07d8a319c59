"""What a loss between features trains besides the network: linear layers from exit to exit.

Adapters are drawn for a phase, belong to its trainee, and end with it. No part, network or finished node
has them, so nothing that answers can need them.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from offramp.device import seeded
from offramp.engine.losses import mean_of
from offramp.engine.passes import ExitAnswers
from offramp.engine.resolve import Node
from offramp.nets.network import ExitNetwork, inside
from offramp.phase import Features, Loss, adapters, teachers
from offramp.seeding import derive

Adapters = Mapping[tuple[int, int], nn.Linear]  # by the exit that learns and the one it learns from


def drawn(node: Node, net: ExitNetwork) -> Adapters:
    """Those of a node, on the device of `net`; weights are a function of (seed, places)."""
    device = next(net.parameters()).device
    found = {}
    for exit, onto in adapters(node.terms):
        with seeded(derive(node.seed, "adapter", net.places[exit - 1], net.places[onto - 1])):
            found[exit, onto] = nn.Linear(inside(net).width(exit), inside(net).width(onto)).to(device)
    return found


def state(held: Adapters, net: ExitNetwork) -> dict[str, Tensor]:
    """The live parameters by name; a slash keeps them apart from those of a network."""
    return {
        f"adapter/{net.places[exit - 1]}/{net.places[onto - 1]}/{name}": tensor
        for (exit, onto), layer in held.items()
        for name, tensor in layer.named_parameters()
    }


def adapted(
    held: Adapters, loss: Loss, mine: ExitAnswers, theirs: ExitAnswers
) -> dict[Features, tuple[Tensor, Tensor]]:
    """By term, what is to learn and what it learns, [B, D] each; the latter has no gradient.

    mine, theirs: of the network that trains and of its teacher.
    """
    through = {pair: layer(mine.features[pair[0]]).float() for pair, layer in held.items()}
    found = {}
    for term in loss:
        if not isinstance(term, Features):
            continue
        onto = max(teachers(term))
        several = [
            (theirs.features[k] if k == onto else through[k, onto]).detach() for k in teachers(term)
        ]
        own = mine.features[onto] if term.exit == onto else through[term.exit, onto]
        found[term] = own, mean_of(several)
    return found
