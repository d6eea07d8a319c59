"""What a source of data returns: images with their official split, before anything is held out.

A source reads one form of files and knows nothing of seeds, subsets or statistics. Images may be
lazy: only the rows that a study uses are asked for, once each, after the labels are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from offramp.data.images.files import Opened, pixel_digest
from offramp.data.images.geometry import Geometry
from offramp.errors import OfframpError


class ImageRows(Protocol):
    """Images that can be counted and read by row: a tensor [N, C, H, W], or something lazy; or texts,
    [N, T]."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """`rows`: [n] int64, ascending. Returns [n, C, H, W], uint8 or float32, on the CPU."""


@dataclass(frozen=True, eq=False)
class RawSplit:
    """One official split of a source.

    images: see `ImageRows`.  labels: [N] int64, on the CPU.
    groups: [N] names of what belongs together, such as the patient of each image, or None. Images of one
        group never go to two splits.

    Raises OfframpError when they disagree in number or there are none.
    """

    images: ImageRows
    labels: Tensor
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.labels, Tensor) or self.labels.dim() != 1:
            raise OfframpError("labels must be a tensor [N]; give one class number an image")
        if self.labels.dtype != torch.int64:
            raise OfframpError(f"labels are {self.labels.dtype}; give torch.int64 class numbers")
        if len(self.images) != len(self.labels):
            raise OfframpError(
                f"{len(self.images)} images but {len(self.labels)} labels; give one label for each image"
            )
        if not len(self.labels):
            raise OfframpError("a split holds no images; give it at least one")
        if self.groups is not None and len(self.groups) != len(self.labels):
            raise OfframpError(
                f"{len(self.groups)} groups but {len(self.labels)} labels; give one group for each image"
            )

    def read(self, rows: Tensor) -> Tensor:
        """The images of `rows` [n]: [n, C, H, W]. Raises OfframpError when they are no tensor."""
        images = self.images[rows]
        if not isinstance(images, Tensor) or len(images) != len(rows):
            raise OfframpError(
                f"images[rows] gave a {type(images).__name__} for {len(rows)} rows; "
                "it must give a tensor [n, C, H, W]"
            )
        return images

    def digests(self, rows: Tensor) -> list[str] | None:
        """SHA-256, in hex, of what each image of `rows` [n] is read from: a file, or pixels. None where
        the images would have to be made for that."""
        if isinstance(self.images, Opened):
            return self.images.digests(rows)
        if isinstance(self.images, Tensor) and self.images.dim() in (2, 4):
            return [pixel_digest(image) for image in self.read(rows)]
        return None


@dataclass(frozen=True, eq=False)
class RawData:
    """What a source returns.

    train, test: the official splits.  A split that is None is held out of train.
    classes: the name of each class, or empty to number those of the training labels.
    provenance: what was read (files, their hashes), in types of JSON.
    geometry: the size that this data is usually given; a study may say otherwise.
    remarks: what to know of how it was read, a line each.
    """

    train: RawSplit
    test: RawSplit | None
    classes: tuple[str, ...] = ()
    validation: RawSplit | None = None
    calibration: RawSplit | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    geometry: Geometry = field(default_factory=Geometry)
    remarks: tuple[str, ...] = ()
