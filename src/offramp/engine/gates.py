"""What gates say of logits while they train (JEI-DNN, arXiv 2310.09163)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from offramp.nets.network import ExitNetwork, exit_macs, inside


@dataclass(frozen=True, eq=False)
class Gating:
    """logits: [B] of the gate of each early exit: above 0 it would leave.  spent: MACs of an image that
    leaves at each exit, all heads before it run, as a share of those at the last exit; 0 to 1."""

    logits: Mapping[int, Tensor]
    spent: Mapping[int, float]


@torch.no_grad()
def statistics(logits: Tensor) -> Tensor:
    """`offramp.policy.scoring.statistics` of finite logits: [B, C] → [B, 4]."""

    def sure(odds: Tensor) -> Tensor:
        entropy: Tensor = torch.special.entr(odds).sum(1)
        return (1 - entropy / math.log(odds.shape[1])).clamp(min=0)

    odds = logits.softmax(1)
    first, second = odds.topk(2, dim=1).values.unbind(1)
    return torch.stack([first, sure(odds), first - second, sure((2 * logits).softmax(1))], dim=1)


def gating(net: ExitNetwork, logits: Mapping[int, Tensor]) -> Gating:
    """What a network's gates say. logits: [B, C] by exit; no gradient goes back to them."""
    said = {}
    for exit, own in logits.items():
        gate = inside(net).heads[exit - 1].gate if exit < net.exits else None
        if gate is not None:  # by single products: float32 whatever the precision
            said[exit] = (statistics(own) * gate.weight[0]).sum(1) + gate.bias
    exits = sorted(logits)
    whole = exit_macs(net, exits)
    spent = {k: exit_macs(net, exits[: i + 1]) / whole for i, k in enumerate(exits)}
    return Gating(said, spent)
