"""The shape of one image, and images that stand in for others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from offramp.errors import OfframpError, shortened

Shape = tuple[int, ...]
"""Of one image: (C, H, W)."""

LARGEST = 2**26  # numbers of an image: 4,700 by 4,700 pixels of three channels


def check_numbers(tensor: Tensor, what: str) -> None:
    """Raise OfframpError for a tensor whose numbers are not there or not one beside the other."""
    if tensor.is_meta:
        raise OfframpError(f"{what} are on the device 'meta', which holds no numbers; give others")
    if tensor.layout is not torch.strided:
        raise OfframpError(f"{what} are a sparse tensor; give .to_dense()")


def check_shape(shape: Any) -> Shape:
    """The shape of one image, as a tuple. Raises OfframpError for what is none."""
    listed = isinstance(shape, Sequence) and not isinstance(shape, str) and len(shape) == 3
    if not listed or not all(isinstance(n, int) and n > 0 for n in shape) or math.prod(shape) > LARGEST:
        raise OfframpError(
            f"input_shape: cannot be {shortened(repr(shape), 60)}; give channels, height and width of "
            f"one image, such as (3, 32, 32), and at most {LARGEST:,} numbers"
        )
    return tuple(shape)


def is_square(sides: Shape) -> bool:
    """Whether the sides of an image, (H, W), are alike; none, (), do not differ."""
    return len(set(sides)) < 2


def noise(
    shape: Shape,
    count: int,
    *,
    like: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images that mean nothing, [count, *shape]: normal numbers. like: whose device and type they have.

    Example:
        >>> noise((3, 4, 4), 2).shape
        torch.Size([2, 3, 4, 4])
    """
    images = torch.randn(count, *shape, generator=generator)
    return images if like is None else images.to(like.device, like.dtype)


def blank(shape: Shape, count: int, like: Tensor) -> Tensor:
    """Images for where only shapes matter: zeros."""
    return like.new_zeros(count, *shape)
