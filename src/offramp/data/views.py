"""Random views of training images: what is drawn, for which image, and what is made of it.

A view is a pure function of (seed, number of the view, image row). It does not matter which images
stand beside it in a batch, in what order or by how many processes they are read, or how the work is
arranged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import assert_never

import torch
from PIL import Image
from torch import Tensor

from offramp.augment import Augment, View
from offramp.hashing import derive

# What each number drawn for an image decides. New ones are added at the end: a column keeps its place.
FLIP, VERTICAL_FLIP, TOP, LEFT, ANGLE, BRIGHTNESS, CONTRAST, SATURATION, BOX = range(9)
BOX_DRAWS = 22  # ten tries of area and ratio, then the place
COLUMNS = BOX + BOX_DRAWS

Box = tuple[int, int, int, int]  # top, left, height, width, in pixels

RATIO = (3 / 4, 4 / 3)  # of width to height


def draws(view: View, rows: Tensor) -> Tensor:
    """The random numbers of some images.

    Each number is the finalizer of SplitMix64 at a place of its sequence that belongs to (row, column)
    alone, so any subset of rows can be drawn, on any device, without drawing the others. rows: [n]
    int64, in the training split.

    Returns:
        [n, COLUMNS] float64 in [0, 1), on the device of `rows`.

    References:
        Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    numbers = _uniform(derive(view.seed, "augment", view.number), rows)
    if view.alternating:  # at random before the first epoch, then the other way in each
        first = _uniform(derive(view.seed, "augment", "alternating"), rows)[:, FLIP] < 0.5
        numbers[:, FLIP] = (first == bool(view.number % 2)).to(torch.float64)
    return numbers


def _uniform(seed: int, rows: Tensor) -> Tensor:
    start = _signed(seed)
    columns = torch.arange(COLUMNS, device=rows.device)
    z = start + (rows[:, None] * COLUMNS + columns + 1) * _signed(0x9E3779B97F4A7C15)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    z = z ^ _shifted(z, 31)
    return _shifted(z, 11).to(torch.float64) * 2.0**-53


def cut_draws(view: View, rows: Tensor) -> list[list[float]]:
    """Of `draws`, what `cut_out` goes by: two numbers for the flips and BOX_DRAWS for the box."""
    columns = [FLIP, VERTICAL_FLIP, *range(BOX, BOX + BOX_DRAWS)]
    return draws(view, rows)[:, columns].tolist()


def random_box(height: int, width: int, shares: tuple[float, float], drawn: Sequence[float]) -> Box:
    """A random box of an image, as torchvision's RandomResizedCrop draws it.

    Of ten tries the first that fits; where none does, the largest box in the middle that has an allowed
    ratio of sides (RATIO).

    Args:
        height: Of the image.
        width: Of the image.
        shares: (from, to) of the image's area.
        drawn: Numbers in [0, 1): a pair for each try (area, logarithm of the ratio), then the place
            (vertical, horizontal).
    """
    *tries, vertical, horizontal = drawn
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for first, second in zip(tries[::2], tries[1::2], strict=True):
        area = height * width * (shares[0] + first * (shares[1] - shares[0]))
        ratio = math.exp(low + second * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(vertical * (height - h + 1)), int(horizontal * (width - w + 1)), h, w
    ratio = min(max(width / height, RATIO[0]), RATIO[1])
    w = min(width, round(height * ratio))
    h = min(height, round(width / ratio))
    return (height - h) // 2, (width - w) // 2, h, w


def cut_out(
    augment: Augment, image: Image.Image, drawn: Sequence[float], size: tuple[int, int]
) -> Image.Image:
    """The box that `resized_crop` cuts from an image, resized, and flipped.

    Pillow's whole numbers do it, so it is the same on every machine and in every process.

    Args:
        augment: What is random.
        image: RGB or L.
        drawn: Of `cut_draws`.
        size: (H, W) of what comes out.
    """
    assert augment.resized_crop is not None
    flip, vertical_flip, *box = drawn
    top, left, height, width = random_box(image.height, image.width, augment.resized_crop, box)
    cut = image.crop((left, top, left + width, top + height))
    cut = cut.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    # Here, since whoever decodes ahead of time does it beside the training, and one image at a time.
    if augment.vertical_flip and vertical_flip < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if (augment.flip or augment.alternating_flip) and flip < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return cut


def augmented(augment: Augment, images: Tensor, drawn: Tensor) -> Tensor:
    """Everything but what `cut_out` does, for a whole batch, on its device.

    Every image comes out as it would alone: pixels are moved, or computed by themselves.

    Args:
        augment: What is random.
        images: [B, C, H, W] uint8 or float32.
        drawn: [B, COLUMNS], on the same device.
    """
    if augment.resized_crop is None:
        images = _moved(augment, images, drawn)
    if augment.rotate:
        # late: it takes seconds to import
        from torchvision.transforms.v2 import InterpolationMode, functional

        images = images.contiguous()  # in one layout, whichever they come in
        angles = ((drawn[:, ANGLE] * 2 - 1) * augment.rotate).tolist()
        turned = [
            functional.rotate(image, angle, InterpolationMode.BILINEAR)
            for image, angle in zip(images, angles, strict=True)
        ]
        images = torch.stack(turned)
    return _jittered(augment.jitter, images, drawn) if augment.jitter else images


def _moved(augment: Augment, images: Tensor, drawn: Tensor) -> Tensor:
    """Crop, then flips: they only say which pixel comes where."""
    if pad := augment.crop:
        height, width = images.shape[2:]
        match augment.pad:
            case "reflect":
                images = _reflected(images, pad)
            case "black":
                images = torch.nn.functional.pad(images, (pad, pad, pad, pad))
            case _:
                assert_never(augment.pad)
        windows = images.unfold(2, height, 1).unfold(3, width, 1)  # [B, C, 2·pad + 1, 2·pad + 1, H, W]
        top, left = ((drawn[:, at] * (2 * pad + 1)).to(torch.int64) for at in (TOP, LEFT))
        images = windows[torch.arange(len(images), device=images.device), :, top, left]
    mirrored = augment.flip or augment.alternating_flip
    for flips, column, dim in ((augment.vertical_flip, VERTICAL_FLIP, 2), (mirrored, FLIP, 3)):
        if flips:
            images = _turned(images, drawn[:, column] < 0.5, dim)
    return images


def _reflected(images: Tensor, pad: int) -> Tensor:
    """As torch's reflection pad, which takes no bytes: the outermost pixels are not repeated."""
    for dim in (2, 3):
        last = images.shape[dim] - 1
        places = torch.arange(-pad, last + 1 + pad, device=images.device).abs()
        images = images.index_select(dim, last - (last - places).abs())
    return images


def _turned(images: Tensor, chosen: Tensor, dim: int) -> Tensor:
    """The images with `chosen` [B] of them flipped, in the layout that they come in. Whole images are
    picked from both kinds: choosing pixel by pixel takes five times as long."""
    last = images.shape[1] > 1 and images.is_contiguous(memory_format=torch.channels_last)
    stored = images.permute(0, 2, 3, 1) if last else images
    both = torch.cat([stored, stored.flip(dim - 1 if last else dim)])
    count = len(images)
    picked = both.index_select(0, torch.arange(count, device=images.device) + count * chosen)
    return picked.permute(0, 3, 1, 2) if last else picked


def _jittered(jitter: float, images: Tensor, drawn: Tensor) -> Tensor:
    """Brightness, contrast, saturation, in this order, each rounded down to whole pixel values."""

    def factors(column: int) -> Tensor:
        return (1 + (drawn[:, column] * 2 - 1) * jitter).to(torch.float32)[:, None, None, None]

    images = _blend(images, torch.zeros_like(images), factors(BRIGHTNESS))
    pixels = math.prod(images.shape[2:])
    # In whole numbers: no order of summation, and so no number of threads, changes a bit of the mean.
    mean = _gray(images).to(torch.int64).sum((1, 2, 3), keepdim=True) // pixels
    images = _blend(images, mean, factors(CONTRAST))
    return _blend(images, _gray(images), factors(SATURATION)) if images.shape[1] == 3 else images


def _blend(images: Tensor, base: Tensor, factor: Tensor) -> Tensor:
    """`base` plus `factor` times what the images have beyond it."""
    base = base.to(torch.float32)
    return (base + factor * (images.to(torch.float32) - base)).clamp_(0, 255).to(torch.uint8)


def _gray(images: Tensor) -> Tensor:
    """Luma of ITU-R BT.601 in 256ths; whole numbers, so that it rounds alike wherever a pixel lies."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.to(torch.int32).unbind(1)
    gray: Tensor = (77 * red + 150 * green + 29 * blue) >> 8
    return gray[:, None]


def _shifted(z: Tensor, bits: int) -> Tensor:
    """`z` as an unsigned number, shifted right."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The int64 of the same 64 bits."""
    number &= 2**64 - 1
    return number - 2**64 if number >= 2**63 else number
