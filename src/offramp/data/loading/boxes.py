"""Random boxes of an image, as torchvision's RandomResizedCrop draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence

Box = tuple[int, int, int, int]  # top, left, height, width, in pixels

RATIO = (3 / 4, 4 / 3)  # of width to height


def random_box(height: int, width: int, shares: tuple[float, float], drawn: Sequence[float]) -> Box:
    """A box with `shares` (from, to) of the image's area and a ratio of sides within RATIO.

    drawn: numbers in [0, 1): a pair for each try (area, logarithm of the ratio), then the place
    (vertical, horizontal). The first try that fits is taken; where none does, the largest box in the
    middle that has an allowed ratio.
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
