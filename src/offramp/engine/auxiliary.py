"""What some losses keep beside the network while a phase trains: adapters between features. They belong
to the trainee and end with it; no part, network or finished node has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from offramp.device import seeded
from offramp.engine.losses import LossContext, mean_of, objective
from offramp.engine.passes import ExitAnswers
from offramp.hashing import derive
from offramp.nets.network import ExitNetwork, inside
from offramp.phase import Features, Loss, Phase, adapters, teachers

Adapters = Mapping[tuple[int, int], nn.Linear]  # by the exit that learns and the one it learns from


def drawn_adapters(loss: Loss, seed: int, net: ExitNetwork) -> Adapters:
    """The adapters of a loss, on the device of `net`; weights are a function of (seed, places)."""
    device = next(net.parameters()).device
    layers = {}
    for exit, onto in adapters(loss):
        with seeded(derive(seed, "adapter", net.places[exit - 1], net.places[onto - 1])):
            layers[exit, onto] = nn.Linear(inside(net).width(exit), inside(net).width(onto)).to(device)
    return layers


def adapter_state(layers: Adapters, net: ExitNetwork) -> dict[str, Tensor]:
    """The live parameters by name; a slash keeps them apart from those of a network."""
    return {
        f"adapter/{net.places[exit - 1]}/{net.places[onto - 1]}/{name}": tensor
        for (exit, onto), layer in layers.items()
        for name, tensor in layer.named_parameters()
    }


def adapted(
    layers: Adapters, loss: Loss, mine: ExitAnswers, theirs: ExitAnswers
) -> dict[Features, tuple[Tensor, Tensor]]:
    """By term, what is to learn and what it learns, [B, D] each; the latter has no gradient. mine,
    theirs: of the network that trains and of its teacher."""
    through = {pair: layer(mine.features[pair[0]]).float() for pair, layer in layers.items()}
    pairs = {}
    for term in loss:
        if not isinstance(term, Features):
            continue
        onto = max(teachers(term))
        several = [
            (theirs.features[k] if k == onto else through[k, onto]).detach() for k in teachers(term)
        ]
        own = mine.features[onto] if term.exit == onto else through[term.exit, onto]
        pairs[term] = own, mean_of(several)
    return pairs


def phase_loss(
    phase: Phase,
    layers: Adapters,
    mine: ExitAnswers,
    theirs: ExitAnswers,
    labels: Tensor,
    context: LossContext,
) -> Tensor:
    """A phase's loss, a scalar: see `objective`. mine, theirs: of the network that trains, of its
    teacher; context: what does not follow from these, as weights of classes, smoothing, gates."""
    features = adapted(layers, phase.terms, mine, theirs)
    context = replace(context, weights=phase.sample_weights, features=features)
    return objective(phase.terms, mine.logits, theirs.logits, labels, context)
