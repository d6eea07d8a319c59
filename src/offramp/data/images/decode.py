"""Image files in memory to pixels."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from offramp.data.progress import Pace, pool
from offramp.errors import OfframpError

SMALL_BYTES = 4096  # below, decoding is so short that threads only fight for the interpreter


def decode(files: Sequence[bytes], names: Sequence[str]) -> Tensor:
    """JPEG, PNG, GIF or WebP files as [N, 3, H, W] uint8, turned upright as their EXIF data say; gray is
    repeated, transparency dropped.

    names: what to call each file in an error.

    Raises OfframpError for a file that is not an image, is not 8 bits deep, or differs in size.
    """
    small = sum(map(len, files)) <= SMALL_BYTES * len(files)
    if small:
        images = [_decode(file, name) for file, name in zip(files, names, strict=True)]
    else:
        with pool(len(files)) as threads:
            images = list(threads.map(_decode, files, names))
    return stack(images, names)


def in_threads(
    make: Callable[[int], Tensor | None], rows: Sequence[int], name: Callable[[int], str]
) -> tuple[Tensor, list[int]]:
    """`make(row)` [C, H, W] of every row, made in parallel: [n, C, H, W], and the rows that they are
    of, which leave out those for which `make` gave None.

    name: what to call a row in an error. Raises what `make` raises, at the first row (in order) that
    fails, and OfframpError when two shapes differ or no row is left; no more images are made then.
    """
    with pool(len(rows)) as threads:
        made = Pace("reading images", len(rows)).over(threads.map(make, rows))
        kept: list[int] = []
        images = torch.empty(0)
        try:
            for row, image in zip(rows, made, strict=True):
                if image is None:
                    continue
                if not kept:
                    images = image.new_empty((len(rows), *image.shape))
                kept.append(row)
                images[len(kept) - 1] = _like(image, row, images[0], kept[0], name)
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    if not kept:
        raise OfframpError(f"none of {len(rows)} images can be read, the first is {name(rows[0])}")
    return images[: len(kept)], kept


def stack(images: Sequence[Tensor], names: Sequence[str]) -> Tensor:
    """Images [C, H, W] of one shape and type as [N, C, H, W].

    Raises OfframpError naming the first image that differs from the first of all.
    """
    return torch.stack(
        [_like(image, i, images[0], 0, names.__getitem__) for i, image in enumerate(images)]
    )


def _like(image: Tensor, row: int, first: Tensor, first_row: int, name: Callable[[int], str]) -> Tensor:
    if image.shape != first.shape or image.dtype != first.dtype:
        raise OfframpError(
            f"{name(row)} is {_describe(image)} where {name(first_row)} is {_describe(first)}; "
            "give all images one size, number of channels and type (data.size makes one size)"
        )
    return image


def _decode(file: bytes, name: str) -> Tensor:
    from torchvision.io import ImageReadMode, decode_image  # late: it takes seconds to import

    if not file:
        raise OfframpError(f"{name} holds no bytes; download the data again")
    try:
        stored = torch.frombuffer(bytearray(file), dtype=torch.uint8)
        image: Tensor = decode_image(stored, ImageReadMode.RGB, apply_exif_orientation=True)
    except RuntimeError as error:
        reason = re.sub(r"^.*\.cpp:\d+, ", "", str(error).splitlines()[0])
        raise OfframpError(f"{name} is no readable image ({reason}); replace it") from error
    if image.dtype != torch.uint8 or image.dim() != 3:
        raise OfframpError(f"{name} is {_describe(image)}; give still images of 8 bits a channel")
    return image


def _describe(image: Tensor) -> str:
    return f"{'×'.join(map(str, image.shape))} {str(image.dtype).removeprefix('torch.')}"
