"""Images made worse in six ways, at five strengths.

Ways and strengths are those of CIFAR-10-C, or for sides of LARGE pixels and more of ImageNet-C:
D. Hendrycks, T. Dietterich, *Benchmarking neural network robustness to common corruptions and
perturbations*, 2019, as their `make_cifar_c.py` and `make_imagenet_c.py` have them. Of their nineteen
ways these six need neither files nor a further library.

It differs in three things. Each image draws noise of its own seed, so that neither batches nor other
images change it. Values are rounded to whole pixels, where theirs are cut off. Images are not saved as
JPEG in the end, as those of ImageNet-C are.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from offramp.hashing import derive

LARGE = 64  # pixels of the shorter side
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Corruption:
    """A way of making images worse."""

    # an image [C, H, W] of values from 0 to 1, an amount and a source of noise → the image; what is
    # outside of 0 to 1 is cut off afterwards
    apply: Callable[[Floats, float, np.random.Generator], Floats]
    small: tuple[float, ...]  # the amount at each strength, from the weakest on
    large: tuple[float, ...]  # the same, of images of LARGE pixels and more

    def amounts(self, height: int, width: int) -> tuple[float, ...]:
        """At each strength, for images of this size in pixels."""
        return self.large if min(height, width) >= LARGE else self.small


def corrupted(
    images: NDArray[np.uint8], name: str, amount: float, seed: int, rows: Sequence[int]
) -> NDArray[np.uint8]:
    """Images [N, C, H, W] made worse. name: of CORRUPTIONS; amount: see `Corruption`; rows: [N], a
    number of each image, by which and the seed its noise is drawn."""
    worse = np.empty_like(images)
    for place, image, row in zip(worse, images, rows, strict=True):
        generator = np.random.default_rng(derive(seed, "corruption", name, repr(amount), row))
        changed = CORRUPTIONS[name].apply(image / 255, amount, generator)
        place[:] = np.rint(255 * np.clip(changed, 0, 1)).astype(np.uint8)
    return worse


def _gaussian_noise(image: Floats, deviation: float, generator: np.random.Generator) -> Floats:
    return image + generator.normal(scale=deviation, size=image.shape)


def _shot_noise(image: Floats, photons: float, generator: np.random.Generator) -> Floats:
    return np.asarray(generator.poisson(image * photons) / photons)


def _blur(image: Floats, deviation: float, _: np.random.Generator) -> Floats:
    blurred: Floats = ndimage.gaussian_filter(image, (0, deviation, deviation), mode="nearest")
    return blurred


def _contrast(image: Floats, share: float, _: np.random.Generator) -> Floats:
    mean: Floats = image.mean(axis=(1, 2), keepdims=True)
    return (image - mean) * share + mean


def _brightness(image: Floats, more: float, _: np.random.Generator) -> Floats:
    """More of the value of HSV, whose hue and saturation stay: all channels grow in proportion."""
    value = image.max(axis=0, keepdims=True)
    brighter = np.minimum(value + more, 1.0)
    scaled: Floats = image * brighter / np.where(value > 0, value, 1.0)
    return np.where(value > 0, scaled, brighter)


def _jpeg(image: Floats, quality: float, _: np.random.Generator) -> Floats:
    pixels = np.rint(255 * image).astype(np.uint8)
    pieces = [pixels.transpose(1, 2, 0)] if len(pixels) == 3 else list(pixels)
    saved = []
    for piece in pieces:
        file = io.BytesIO()
        Image.fromarray(piece).save(file, "JPEG", quality=int(quality))
        saved.append(np.asarray(Image.open(file)) / 255)
    return np.asarray(saved[0].transpose(2, 0, 1) if len(pixels) == 3 else np.stack(saved))


CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian noise": Corruption(
        _gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)
    ),
    "shot noise": Corruption(_shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "blur": Corruption(_blur, (0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6)),
    "contrast": Corruption(_contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "brightness": Corruption(_brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "jpeg": Corruption(_jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}
