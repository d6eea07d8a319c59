"""Images without meaning, which every process of a training makes for itself."""

from __future__ import annotations

import torch
from torch import Tensor

OTHERS = 64  # in each other split


def make_data(images: int, side: int) -> dict[str, tuple[Tensor, Tensor]]:
    """uint8 images [n, C, side, side], of one channel where they are tiny, and labels of ten classes."""
    generator = torch.Generator().manual_seed(1)
    channels = 1 if side == 8 else 3

    def split(count: int) -> tuple[Tensor, Tensor]:
        size = (count, channels, side, side)
        pixels = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
        return pixels, torch.arange(count) % 10

    return {"train": split(images), "validation": split(OTHERS), "test": split(OTHERS)}
