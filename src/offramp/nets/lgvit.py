"""The two heads of LGViT (Xu et al., arXiv 2308.00255), for exits of vision transformers.

A **local** head mixes neighboring tokens by convolutions, a **global** one all tokens by attention. Both
read tokens [B, T, D] that lie on a grid, row by row, behind at most one class token, and return a vector
[B, D] for a linear layer: the mean over the grid, plus the class token where there is one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from math import gcd, isqrt
from typing import Any

import torch
from torch import Tensor, nn

ATTENTION_HEADS = 8  # at most; as many of them as divide the width


def kind_at(exit: int, exits: int) -> Mapping[str, Any]:
    """The head of early exit `exit` (from 1) of `exits`: local in the first half, at first with a 3×3
    convolution and then without; global in the second, of every second and then every third token.

    Example:
        >>> [kind_at(exit, 4)["kind"] for exit in (1, 2, 3, 4)]
        ['local', 'local', 'global', 'global']
    """
    quarter = 4 * (exit - 1) // exits
    if quarter < 2:
        return {"kind": "local", "kernel": 3 if quarter == 0 else 1}
    return {"kind": "global", "stride": quarter}


def grid(tokens: int, sides: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the largest grid that `tokens` can fill, (0, 0) where there is none. Those
    that are left over come first. sides: (height, width) of the images, whose proportion the grid has.

    Example:
        >>> grid(197, (224, 224)), grid(198, (224, 224)), grid(32, (64, 128))
        ((14, 14), (14, 14), (4, 8))
    """
    high, wide = (side // gcd(*sides) for side in sides)
    times = isqrt(tokens // (high * wide))
    return times * high, times * wide


class MapTokens(nn.Module):
    """A map, [B, C, H, W] or [B, H, W, C], as tokens [B, H·W, C]."""

    def __init__(self, channels_first: bool) -> None:
        super().__init__()
        self.channels_first = channels_first

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2) if self.channels_first else x.flatten(1, 2)


class Sampled(nn.Module):
    """[B, leading + rows · columns, D] → the first token, where some lead, and every `stride`-th of the
    grid, along its rows and its columns. Of several that lead, as registers do, only the first stays."""

    def __init__(self, leading: int, rows: int, columns: int, stride: int) -> None:
        super().__init__()
        self.leading, self.rows, self.columns, self.stride = leading, rows, columns, stride

    def forward(self, x: Tensor) -> Tensor:
        size = self.rows, self.columns
        lying: Tensor = x[:, self.leading :].unflatten(1, size)  # type: ignore[no-untyped-call]
        some = lying[:, :: self.stride, :: self.stride].flatten(1, 2)
        return torch.cat((x[:, :1], some), 1) if self.leading else some

    def extra_repr(self) -> str:
        return f"{self.leading} + {self.rows}×{self.columns}, stride={self.stride}"


class LocalPerception(nn.Module):
    """Tokens of a grid, behind a class token where `leads`, → [B, width].

    1×1 convolution to `hidden` channels, `kernel`×`kernel` depthwise convolution (none for 1), 1×1
    convolution back, added to the grid. The first two are followed by GELU and BatchNorm, the last by
    BatchNorm.

    Args:
        width: Of a token.
        hidden: Channels inside.
        kernel: Of the depthwise convolution, in tokens.
        size: Rows and columns of the grid.
        leads: Whether a class token comes first.
    """

    def __init__(self, width: int, hidden: int, kernel: int, size: tuple[int, int], leads: bool) -> None:
        super().__init__()
        self.size, self.leads = size, leads
        modules: dict[str, nn.Module] = {
            "expand": nn.Conv2d(width, hidden, 1),
            "expand_gelu": nn.GELU(),
            "expand_norm": nn.BatchNorm2d(hidden),
        }
        if kernel > 1:
            modules |= {
                "depthwise": nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden),
                "depthwise_gelu": nn.GELU(),
                "depthwise_norm": nn.BatchNorm2d(hidden),
            }
        modules |= {
            "project": nn.Conv2d(hidden, width, 1, bias=False),
            "project_norm": nn.BatchNorm2d(width),
        }
        self.mix = nn.Sequential(OrderedDict(modules))

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous()  # kernels go by how values lie, and cached ones may lie otherwise
        tokens = x[:, 1:] if self.leads else x
        lying = tokens.transpose(1, 2).unflatten(2, self.size)  # type: ignore[no-untyped-call]
        mean: Tensor = (lying + self.mix(lying)).mean((2, 3))
        return mean + x[:, 0] if self.leads else mean


class GlobalAggregation(nn.Module):
    """Tokens, behind a class token where `leads`, → [B, width]: self-attention among all but that one.

    What attention gives each token is only averaged, so the weights are averaged over the queries first,
    which is the same and spares most of the products.

    Args:
        width: Of a token.
        leads: Whether a class token comes first.
    """

    def __init__(self, width: int, leads: bool) -> None:
        super().__init__()
        self.heads, self.leads = gcd(width, ATTENTION_HEADS), leads
        self.scale = (width // self.heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous()  # as above
        tokens = x[:, 1:] if self.leads else x
        split = self.qkv(tokens).unflatten(2, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)  # [B, heads, T, D / heads] each
        weights = (query @ key.transpose(2, 3) * self.scale).softmax(3).mean(2, keepdim=True)
        mean: Tensor = self.project((weights @ value).transpose(1, 2).flatten(1))
        return mean + x[:, 0] if self.leads else mean
