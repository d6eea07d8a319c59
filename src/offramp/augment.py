"""Augmentation of training images: a declaration, which is part of the key."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Lt

from offramp.errors import check_fields

RANDOM = ("flip", "vertical_flip", "crop", "resized_crop", "rotate", "jitter", "own")
"""The fields that draw anew for every view."""


@dataclass(frozen=True)
class View:
    """One of the random views of a seed.

    Attributes:
        seed: What it is drawn with.
        number: From 0.
        alternating: Whether an image is mirrored in every other view, instead of at random.
    """

    seed: int
    number: int
    alternating: bool = False


@dataclass(frozen=True)
class Augment:
    """How training images are augmented, in this order.

    Attributes:
        resized_crop: (from, to), shares of the image's area: a random box with an area between them and
            sides in a ratio of 3:4 to 4:3, resized to the size that the network takes (bilinear,
            antialiased).
        crop: Pad by this many pixels, then take a random window of the original size.
        pad: These pixels are `black`, or mirror the image (`reflect`).
        alternating_flip: Left and right exchanged in every other epoch, beginning with half of the
            images. Alone it makes two views only, so frozen features are computed twice, not once an
            epoch.
        flip: Left and right exchanged in half of the cases.
        vertical_flip: Top and bottom exchanged in half of the cases.
        rotate: By up to this many degrees either way, bilinear; new corners are black.
        jitter: Brightness, contrast and (of color images) saturation, each times 1 - jitter to
            1 + jitter.
        views: This many fixed views of every image, in turn by epochs; None draws a new one each epoch.
        own: Set by offramp if a Dataset has its own random transform, which comes before all others: a
            hash of each image's first view.

    Raises:
        OfframpError: for a value of another type or out of its range.

    Example:
        >>> from offramp import Augment
        >>> print(Augment(flip=True, crop=4, views=8))
        crop 4, flip, 8 views
    """

    flip: bool = False
    vertical_flip: bool = False
    crop: Annotated[int, Ge(0)] = 0
    resized_crop: tuple[float, float] | None = None
    rotate: Annotated[float, Ge(0), Le(180)] = 0.0
    jitter: Annotated[float, Ge(0), Lt(1)] = 0.0
    views: Annotated[int, Ge(1)] | None = None
    own: str | None = None
    alternating_flip: bool = False
    pad: Literal["black", "reflect"] = "black"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that differ from their defaults: what a key is made of, so that a new kind of
        augmentation leaves the keys of the others alone."""
        values = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        return {name: value for name, value, default in values if value != default}

    def view(self, seed: int, epoch: int) -> View:
        """The view that epoch `epoch` (from 0) of any phase trains on.

        Example:
            >>> offramp.Augment(flip=True, views=8).view(seed=42, epoch=9).number
            1
        """
        count = self._count
        return View(seed, epoch if count is None else epoch % count, self.alternating_flip)

    def distinct(self, epochs: int) -> int:
        """How many different views so many epochs see.

        Example:
            >>> offramp.Augment(flip=True, views=8).distinct(20)
            8
        """
        return epochs if self._count is None else min(self._count, epochs)

    @property
    def _count(self) -> int | None:
        """How many views there are; None: a new one each epoch."""
        alone = self.alternating_flip and not any(getattr(self, name) for name in RANDOM)
        return 2 if alone and self.views is None else self.views

    def __str__(self) -> str:
        """`crop 4, flip, 8 views`."""
        low, high = self.resized_crop or (0, 0)
        words = {
            "own transform": self.own is not None,
            f"resized crop {low:g} to {high:g}": self.resized_crop is not None,
            f"crop {self.crop}{' reflected' if self.pad == 'reflect' else ''}": self.crop,
            "flip": self.flip,
            "alternating flip": self.alternating_flip,
            "vertical flip": self.vertical_flip,
            f"rotate {self.rotate:g}°": self.rotate,
            f"jitter {self.jitter:g}": self.jitter,
            f"{self.views} views": self.views is not None,
        }
        return ", ".join(word for word, applies in words.items() if applies)


def clash(augment: Augment) -> tuple[str, str] | None:
    """A field that cannot hold, by itself or beside another, and what is wrong with it; else None."""
    if augment.resized_crop is not None:
        low, high = augment.resized_crop
        if not 0 < low <= high <= 1:
            return (
                "resized_crop",
                f"must be shares of the area, 0 < from <= to <= 1, got {low}, {high}",
            )
        if augment.crop:
            return "crop", "goes with no resized_crop; keep one of them"
    if augment.flip and augment.alternating_flip:
        return "alternating_flip", "goes with no flip; keep one of them"
    if augment.alternating_flip and augment.views is not None and augment.views % 2:
        return "views", f"must be even beside alternating_flip, got {augment.views}"
    if augment.pad != "black" and not augment.crop:
        return "pad", "goes with crop; set how many pixels"
    if not augment.alternating_flip and not any(getattr(augment, name) for name in RANDOM):
        others = ", ".join((*RANDOM[1:-1], "alternating_flip"))
        return "flip", f"or another of {others} must be set; nothing is augmented"
    return None
