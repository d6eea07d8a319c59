"""Elastic weight consolidation: how much each weight mattered when a phase began, and what it costs to
move it (Kirkpatrick et al., arXiv 1612.00796)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offramp.engine.images import Images
from offramp.engine.passes import Pass
from offramp.engine.resolve import Node
from offramp.nets.network import ExitNetwork
from offramp.phase import EWC


@dataclass(frozen=True, eq=False)
class Anchor:
    """By the name of each parameter that trains: where it was, and the mean over images of the squared
    derivative of the cross-entropy (the diagonal of the empirical Fisher matrix)."""

    start: Mapping[str, Tensor]
    fisher: Mapping[str, Tensor]


Anchors = Mapping[int, Anchor]  # by the number of the term in the loss


def anchored(
    node: Node, net: ExitNetwork, named: Mapping[str, nn.Parameter], passes: Pass, images: Images
) -> Anchors:
    """Those of a node, from the weights that `net` has now, in eval mode and not augmented.

    named: the parameters that train.
    """
    found = {}
    for number, term in enumerate(node.terms):
        if not isinstance(term, EWC):
            continue
        start = {name: parameter.detach().clone() for name, parameter in named.items()}
        found[number] = Anchor(start, _fisher(term, node, net, named, passes, images))
    return found


def _fisher(
    term: EWC,
    node: Node,
    net: ExitNetwork,
    named: Mapping[str, nn.Parameter],
    passes: Pass,
    images: Images,
) -> dict[str, Tensor]:
    """Image by image, since the square of a mean is not the mean of squares."""
    count = images.count("train")
    few = min(term.images, count)
    rows = torch.split(torch.arange(few, device=images.device) * count // few, 1)
    weights = list(named.values())
    sums = [torch.zeros_like(parameter) for parameter in weights]
    for row, read in zip(rows, passes.reads("train", rows, None, [node]), strict=True):
        mine, _ = passes.answers(node, net, read)
        labels = images.labels("train", row)
        loss = torch.stack([F.cross_entropy(mine.logits[k], labels) for k in term.exits]).sum()
        slopes = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        for total, slope in zip(sums, slopes, strict=True):
            total.addcmul_(slope, slope)
    return {name: total / few for name, total in zip(named, sums, strict=True)}


def penalties(anchors: Anchors, node: Node, named: Mapping[str, nn.Parameter]) -> dict[EWC, Tensor]:
    """By term, Σ F (θ - θ*)², a scalar with a gradient."""
    found = {}
    for number, anchor in anchors.items():
        term = node.terms[number]
        assert isinstance(term, EWC)
        moved = [
            (anchor.fisher[name] * (parameter - anchor.start[name]).square()).sum()
            for name, parameter in named.items()
        ]
        found[term] = torch.stack(moved).sum()
    return found
