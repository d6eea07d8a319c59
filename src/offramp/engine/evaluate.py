"""The logits and answers of a finished network on whole splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from offramp.engine.images import Images
from offramp.engine.values import IMAGES, Point, Tensors, compute, pad
from offramp.nets.network import ExitNetwork, inside


@torch.no_grad()
def split_logits(
    net: ExitNetwork,
    images: Images,
    split: str,
    exits: Sequence[int],
    batch: int,
    mirrored: bool = False,
) -> np.ndarray:
    """[N, len(exits), classes] float32 of the exits' heads, in eval mode; each trunk's layers run once a
    batch. mirrored: of the images with left and right exchanged. Each rank answers every so many
    batches; all get all of it."""
    ranks, count = images.ranks, images.count(split)
    every = torch.split(torch.arange(count, device=images.device), batch)
    pieces = every[ranks.rank :: ranks.count]
    each = -(-len(every) // ranks.count)  # of a rank, at most
    mine = torch.zeros(each, batch, len(exits), net.classes, device=images.device)
    for place, piece, read in zip(mine, pieces, images.reads(split, pieces), strict=False):
        (pixels,) = pad(read.flip(3) if mirrored else read, batch)
        known: dict[int, dict[Point, Tensors]] = {}
        logits = []
        for exit in exits:
            trunk = inside(net).trunk_of[exit - 1]
            values = known.setdefault(trunk, {IMAGES: (pixels,)})
            logits.append(compute(net, values, Point("logits", exit), trunk))
        place[: len(piece)] = torch.stack([value[: len(piece)] for (value,) in logits], dim=1)
    answers = ranks.gather(mine).transpose(0, 1).reshape(-1, len(exits), net.classes)[:count]
    return np.asarray(answers.cpu().numpy())


@torch.no_grad()
def answered(net: ExitNetwork, own: np.ndarray, exits: Sequence[int]) -> np.ndarray:
    """What exits answer, from `split_logits` of all of them: both are [N, len(exits), classes]."""
    if not inside(net).carry:
        return own
    logits = torch.from_numpy(own).to(next(net.parameters()).device)
    found: list[torch.Tensor] = []
    for at, exit in enumerate(exits):
        found.append(inside(net).answer(exit, logits[:, at], found[-1] if found else None))
    return np.asarray(torch.stack(found, dim=1).cpu().numpy())
