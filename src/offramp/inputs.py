"""What one example is: an image of numbers, or a text of token ids. Its shape says which."""

from __future__ import annotations

import torch
from torch import Tensor

Shape = tuple[int, ...]
"""Of one example: (C, H, W) of an image, or (T,) of a text, T ids of tokens, padded with zeros."""


def is_text(shape: Shape) -> bool:
    """Whether an example of that shape is a text."""
    return len(shape) == 1


def is_square(sides: Shape) -> bool:
    """Whether the sides of an example, (H, W), are alike; a text has none, (), that differ."""
    return len(set(sides)) < 2


def noise(
    shape: Shape,
    count: int,
    *,
    like: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Examples that mean nothing, [count, *shape]: normal numbers for an image, ids 0 and 1 for a text,
    which begins with 1, as all of a text cannot be padding. like: whose device, and type of floating
    point, they have.

    >>> noise((4,), 2).shape
    torch.Size([2, 4])
    """
    if is_text(shape):
        made = torch.randint(2, (count, *shape), generator=generator)
        made[:, 0] = 1
        return made if like is None else made.to(like.device)
    made = torch.randn(count, *shape, generator=generator)
    return made if like is None else made.to(like.device, like.dtype)


def blank(shape: Shape, count: int, like: Tensor) -> Tensor:
    """The same for where only shapes matter: zeros for an image, ones for a text."""
    if is_text(shape):
        return torch.ones(count, *shape, dtype=torch.int64, device=like.device)
    return like.new_zeros(count, *shape)
