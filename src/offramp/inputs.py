"""What one example is: an image of numbers, or a text of token ids. Its shape says which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from offramp.errors import OfframpError, shortened
from offramp.units import noun

Shape = tuple[int, ...]
"""Of one example: (C, H, W) of an image, or (T,) of a text, T ids of tokens, padded with zeros."""


LARGEST = 2**26  # numbers of an example: 4,700 by 4,700 pixels of three channels


def is_text(shape: Shape) -> bool:
    """Whether an example of that shape is a text."""
    return noun(shape) == "text"


def check_numbers(tensor: Tensor, what: str) -> None:
    """Raise OfframpError for a tensor whose numbers are not there or not one beside the other."""
    if tensor.is_meta:
        raise OfframpError(f"{what} are on the device 'meta', which holds no numbers; give others")
    if tensor.layout is not torch.strided:
        raise OfframpError(f"{what} are a sparse tensor; give .to_dense()")


def unknown_ids(ids: Tensor, error: IndexError) -> IndexError | OfframpError:
    """What to raise for the error of a network on the CPU: of texts with ids that it has no weights for
    a line that says so, else the error itself. ids: what it read. On a GPU such an id ends the process.
    """
    if ids.is_floating_point() or "index out of range" not in str(error):
        return error
    low, high = ids.aminmax()
    return OfframpError(
        f"ids of tokens go from {int(low)} to {int(high)}, and the network lacks weights for some: give "
        "ids of its vocabulary, or the network a larger one"
    )


def check_shape(shape: Any) -> Shape:
    """The shape of one example, as a tuple. Raises OfframpError for what is none."""
    listed = isinstance(shape, Sequence) and not isinstance(shape, str) and len(shape) in (1, 3)
    if not listed or not all(isinstance(n, int) and n > 0 for n in shape) or math.prod(shape) > LARGEST:
        raise OfframpError(
            f"input_shape: cannot be {shortened(repr(shape), 60)}; give channels, height and width of "
            "one image, such as (3, 32, 32), or the number of tokens of a text, such as (64,), and at "
            f"most {LARGEST:,} numbers"
        )
    return tuple(shape)


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
    """Examples that mean nothing, [count, *shape]: normal numbers for images, ids 0 and 1 for texts. A
    text begins with 1, as all of it cannot be padding. like: whose device, and type of floating point,
    they have.

    Example:
        >>> noise((4,), 2).shape
        torch.Size([2, 4])
    """
    if is_text(shape):
        texts = torch.randint(2, (count, *shape), generator=generator)
        texts[:, 0] = 1
        return texts if like is None else texts.to(like.device)
    images = torch.randn(count, *shape, generator=generator)
    return images if like is None else images.to(like.device, like.dtype)


def blank(shape: Shape, count: int, like: Tensor) -> Tensor:
    """Examples for where only shapes matter: zeros for an image, ones for a text."""
    if is_text(shape):
        return torch.ones(count, *shape, dtype=torch.int64, device=like.device)
    return like.new_zeros(count, *shape)
