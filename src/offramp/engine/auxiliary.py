"""What some losses keep beside the network while a phase trains: adapters between features, and anchors
of weights. Both belong to the trainee and end with it; no part, network or finished node has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from offramp.device import seeded
from offramp.engine.losses import LossContext, cross_entropies, mean_of, objective
from offramp.engine.passes import ExitAnswers
from offramp.errors import OfframpError
from offramp.hashing import derive
from offramp.nets.network import ExitNetwork, inside
from offramp.phase import EWC, Features, Loss, Phase, adapters, teachers

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


@dataclass(frozen=True, eq=False)
class Anchor:
    """Where weights were when a phase began, and how much each mattered (elastic weight consolidation,
    Kirkpatrick et al., arXiv 1612.00796)."""

    start: Mapping[str, Tensor]  # the values, by the name of each parameter that trains
    # the mean over images of the squared derivative of the cross-entropy (the diagonal of the empirical
    # Fisher matrix)
    fisher: Mapping[str, Tensor]


Anchors = Mapping[int, Anchor]  # by the number of the term in the loss


Looks = Callable[[int], Iterable[tuple[ExitAnswers, Tensor]]]
"""At most so many training images, one at a time, each as it is and in eval mode: what the exits answer,
and its label [1]."""


def anchored(
    loss: Loss, named: Mapping[str, nn.Parameter], looks: Looks, several: bool = False
) -> Anchors:
    """Those of a loss, from the weights that are `named` now: the parameters that train. several:
    whether an image has several labels."""
    anchors = {}
    for number, term in enumerate(loss):
        if isinstance(term, EWC):
            start = {name: parameter.detach().clone() for name, parameter in named.items()}
            anchors[number] = Anchor(start, _fisher(term, named, looks, several))
    return anchors


def _fisher(
    term: EWC, named: Mapping[str, nn.Parameter], looks: Looks, several: bool
) -> dict[str, Tensor]:
    """Image by image, since the square of a mean is not the mean of squares."""
    weights, count = list(named.values()), 0
    sums = [torch.zeros_like(parameter) for parameter in weights]
    for mine, labels in looks(term.images):
        count += 1
        entropies = [cross_entropies(mine.logits[k], labels, several).mean() for k in term.exits]
        loss = torch.stack(entropies).sum()
        slopes = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        for total, slope in zip(sums, slopes, strict=True):
            slope = slope.detach()  # zeros, of what the loss does not read, may ask for a gradient
            total.addcmul_(slope, slope)
    if not count:
        raise OfframpError(
            "no image came to measure how much each weight matters; give phase.weigh a loader of some"
        )
    return {name: total / count for name, total in zip(named, sums, strict=True)}


def penalties(anchors: Anchors, loss: Loss, named: Mapping[str, nn.Parameter]) -> dict[EWC, Tensor]:
    """By term, Σ F (θ - θ*)², a scalar with a gradient."""
    scalars = {}
    for number, anchor in anchors.items():
        term = loss[number]
        assert isinstance(term, EWC)
        moved = [
            (anchor.fisher[name] * (parameter - anchor.start[name]).square()).sum()
            for name, parameter in named.items()
        ]
        scalars[term] = torch.stack(moved).sum()
    return scalars


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
