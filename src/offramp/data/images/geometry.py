"""From images of any size to the size and channels that a study asks for.

Pillow's integer arithmetic does it, so the pixels, and the keys that hash them, are the same on every
machine and number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from PIL import Image
from torch import Tensor

from offramp.data.images.files import as_mode, pixels
from offramp.data_spec import Fit, Pixels
from offramp.errors import OfframpError, check_fields


@dataclass(frozen=True)
class Geometry:
    """What images are made to.

    Raises:
        OfframpError: for numbers that fit no image.
    """

    # side in pixels of the square that comes out; None leaves images as they are
    size: Pixels | None = None
    # what the shorter side is scaled to before the central square is cut out; None: `size`
    resize: Pixels | None = None
    # `crop` cuts that square; `stretch` scales both sides to `size`, whatever the aspect
    fit: Fit = "crop"
    # 3 repeats gray, 1 weighs color into gray (ITU-R 601, as Pillow); None leaves them
    channels: Literal[1, 3] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.resize is not None:
            if self.size is None or self.fit != "crop":
                raise OfframpError("data.resize goes with data.size and fit: crop; leave it out")
            if self.resize < self.size:
                raise OfframpError(
                    f"data.resize {self.resize} is less than data.size {self.size}; "
                    "a crop cannot be larger than the image"
                )

    def of(self, image: Image.Image | Tensor) -> Tensor:
        """One RGB or L image as [C, H, W] uint8; one [C, H, W] that is not a picture as `of_batch`."""
        if isinstance(image, Tensor):
            return self.of_batch(image[None])[0]
        return pixels(self.sized(self.toned(image)))

    def toned(self, image: Image.Image) -> Image.Image:
        """The image in gray or color, as `channels` says."""
        return image if self.channels is None else as_mode(image, "L" if self.channels == 1 else "RGB")

    def sized(self, image: Image.Image) -> Image.Image:
        """The image scaled and cropped; its channels as they are."""
        if self.size is None:
            return image
        match self.fit:
            case "stretch":
                return _scaled(image, self.size, self.size)
            case "crop":
                image = _shorter(image, self.resize or self.size)
                left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
                return image.crop((left, top, left + self.size, top + self.size))
            case _:
                assert_never(self.fit)

    def whole(self, image: Image.Image) -> Image.Image:
        """All of the image, from which random boxes are cut: its shorter side scaled to `resize`, where
        that is set."""
        return self.toned(image if self.resize is None else _shorter(image, self.resize))

    def of_batch(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] that have one size already → [N, C', H', W'].

        Raises:
            OfframpError: where floating-point images, which are already normalized, would change.
        """
        if self.channels is not None and self.channels != images.shape[1]:
            images = _channels(images, self.channels)
        if self.size is None or (
            self.resize in (None, self.size) and images.shape[2:] == (self.size, self.size)
        ):
            return images
        if images.is_floating_point():
            raise OfframpError("data.size works on uint8 images; resize normalized ones beforehand")
        if images.shape[1] not in (1, 3):
            raise OfframpError(f"data.size works on 1 or 3 channels, and images have {images.shape[1]}")
        return torch.stack([pixels(self.sized(picture(image))) for image in images])


def picture(image: Tensor) -> Image.Image:
    """[1 or 3, H, W] uint8 as an L or RGB image."""
    array = image.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if len(image) == 1 else array)


def _shorter(image: Image.Image, side: int) -> Image.Image:
    """The image scaled so that its shorter side is `side`."""
    width, height = image.size
    if width <= height:
        return _scaled(image, side, max(side, side * height // width))
    return _scaled(image, max(side, side * width // height), side)


def _scaled(image: Image.Image, width: int, height: int) -> Image.Image:
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _channels(images: Tensor, channels: int) -> Tensor:
    if channels == 3 and images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1).contiguous()
    if channels == 1 and images.shape[1] == 3 and images.dtype == torch.uint8:
        return torch.stack([pixels(as_mode(picture(image), "L")) for image in images])
    raise OfframpError(
        f"data.channels is {channels}, but images have {images.shape[1]} of {images.dtype}; leave it out"
    )
