"""Losses and accuracies of a pass over a split, summed batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from offramp.device import widest
from offramp.engine.losses import cross_entropies, right
from offramp.labels import several


@torch.no_grad()
def measured(exits: Sequence[int], loss: Tensor, logits: Mapping[int, Tensor], labels: Tensor) -> Tensor:
    """Sums over the images of a batch, [1 + 2 · exits], float64 where the device has it: of losses, from
    the batch's mean `loss`, then for each exit of cross-entropies and of hits."""
    sums = [loss * len(labels)]
    for exit in exits:
        own = logits[exit].detach()
        if several(labels):
            sums.append(cross_entropies(own, labels, True).sum())
        else:
            sums.append(F.cross_entropy(own, labels, reduction="sum"))
        sums.append(right(own, labels, several(labels)).sum())
    return torch.stack([total.to(widest(loss.device)) for total in sums])


@dataclass
class Tally:
    """Sums of loss, cross-entropy and hits over a pass. They stay on the device and are read once."""

    exits: Sequence[int]  # that the loss reads
    sums: Tensor  # [1 + 2 · exits], float64 where the device has it
    losses: list[Tensor] = field(default_factory=list)  # [1] float32 of each step so far
    images: int = 0  # added so far
    seconds: float = 0.0  # of an epoch before it was interrupted

    @staticmethod
    def begun(exits: Sequence[int], device: torch.device) -> Tally:
        sums = torch.zeros(1 + 2 * len(exits), dtype=widest(device), device=device)
        return Tally(exits, sums)

    @property
    def steps(self) -> int:
        return len(self.losses)

    def add(self, sums: Tensor, images: int) -> None:
        """The sums of a batch, by `measured`."""
        self.losses.append((sums[:1] / images).float())
        self.sums += sums
        self.images += images

    def read(self) -> tuple[float, dict[int, tuple[float, float]]]:
        """The mean loss, and (cross-entropy, accuracy) by exit. Waits for the device."""
        loss, *rest = (self.sums / self.images).tolist()
        pairs = zip(rest[::2], rest[1::2], strict=True)
        return loss, dict(zip(self.exits, pairs, strict=True))

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON, for a checkpoint; `unpack` brings it back."""
        numbers = {"images": self.images, "steps": self.steps, "seconds": self.seconds}
        losses = torch.cat([self.sums[:0].float(), *self.losses])
        return {"losses": losses, "sums": self.sums}, numbers

    @staticmethod
    def unpack(
        exits: Sequence[int],
        tensors: Mapping[str, Tensor],
        numbers: Mapping[str, Any],
        device: torch.device,
    ) -> Tally:
        losses, sums = (tensors[name].to(device) for name in ("losses", "sums"))
        steps, images, seconds = (numbers[name] for name in ("steps", "images", "seconds"))
        if len(losses) < steps:  # more are of steps to come, in those of an earlier offramp
            raise ValueError("its losses are of other steps")
        return Tally(exits, sums, list(losses[:steps, None]), images, seconds)
