"""Image files in memory to pixels."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from offramp.errors import OfframpError

SMALL_BYTES = 4096  # below, decoding is so short that threads only fight for the interpreter


def decode(files: Sequence[bytes], names: Sequence[str]) -> Tensor:
    """JPEG, PNG, GIF or WebP files as [N, 3, H, W] uint8; gray is repeated, transparency dropped.

    names: what to call each file in an error.

    Raises OfframpError for a file that is no image, is not 8 bits deep, or differs in size.
    """
    small = sum(map(len, files)) <= SMALL_BYTES * len(files)
    if small:
        images = [_decode(file, name) for file, name in zip(files, names, strict=True)]
    else:
        with ThreadPoolExecutor(min(len(files), os.cpu_count() or 1, 16)) as pool:
            images = list(pool.map(_decode, files, names))
    return stack(images, names)


def stack(images: Sequence[Tensor], names: Sequence[str]) -> Tensor:
    """Images [C, H, W] of one shape and type as [N, C, H, W].

    Raises OfframpError naming the first image that differs from the first of all.
    """
    like = images[0]
    for image, name in zip(images, names, strict=True):
        if image.shape != like.shape or image.dtype != like.dtype:
            raise OfframpError(
                f"{name} is {_describe(image)} where {names[0]} is {_describe(like)}; "
                "give all images one size, number of channels and type"
            )
    return torch.stack(list(images))


def _decode(file: bytes, name: str) -> Tensor:
    if not file:
        raise OfframpError(f"{name} holds no bytes; download the data again")
    try:
        image: Tensor = decode_image(
            torch.frombuffer(bytearray(file), dtype=torch.uint8), ImageReadMode.RGB
        )
    except RuntimeError as error:
        reason = re.sub(r"^.*\.cpp:\d+, ", "", str(error).splitlines()[0])
        raise OfframpError(f"{name} is no readable image ({reason}); replace it") from error
    if image.dtype != torch.uint8 or image.dim() != 3:
        raise OfframpError(f"{name} is {_describe(image)}; give still images of 8 bits a channel")
    return image


def _describe(image: Tensor) -> str:
    return f"{'×'.join(map(str, image.shape))} {str(image.dtype).removeprefix('torch.')}"
