"""Two networks with control flow, as somebody writes them by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 16


def _block(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()
    )


class BySize(nn.Module):
    """Halves its map until it is small, so that larger images run more layers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_block(3), *(_block(WIDTH) for _ in range(5))])
        self.fc = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
            if x.shape[-1] > 8:
                x = nn.functional.max_pool2d(x, 2)
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


class Sharpen(nn.Module):
    """Looks at its values: a batch of pale maps is brightened."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.abs().mean() < 0.1 else torch.relu(x)


class ByValue(nn.Module):
    """A chain of blocks, one of which does different things to different values."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem, self.middle, self.last = _block(3), _block(WIDTH), _block(WIDTH)
        self.sharpen = Sharpen()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.last(self.middle(self.sharpen(self.stem(x))))))  # type: ignore[no-any-return]


def by_size(classes: int) -> nn.Module:
    return BySize(classes)


def by_value(classes: int) -> nn.Module:
    return ByValue(classes)
