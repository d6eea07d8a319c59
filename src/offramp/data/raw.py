"""What a source of data returns: images with their official split, before anything is held out.

A source reads one form of files and knows nothing of seeds, subsets or statistics. Images may be
lazy: only the rows that a study uses are asked for, once each, after the labels are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from offramp.data.images.files import StoredImages, pixel_digest
from offramp.data.images.geometry import Geometry
from offramp.data_spec import SPLITS
from offramp.errors import OfframpError, kind_of
from offramp.labels import several

REGRESSION = (
    ". Regression is left out: an exit leaves by how sure its answer is, which a number does not say; "
    "cut it into ranges, which are classes"
)


class ImageRows(Protocol):
    """Images that are read by rows: a tensor [N, C, H, W], or something lazy."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """`rows`: [n] int64, ascending. Returns [n, C, H, W], uint8 or float32, on the CPU."""


@dataclass(frozen=True, eq=False)
class RawSplit:
    """One official split of a source.

    Raises:
        OfframpError: when they disagree in number, or there are none.
    """

    images: ImageRows | StoredImages  # N of them, in memory or opened one by one
    labels: Tensor  # [N] int64, on the CPU; or, of several labels an image, [N, C] uint8 of 0 and 1
    # [N] names of what belongs together, such as the patient of each image, or None. Images of one group
    # never go to two splits
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.labels, Tensor) or self.labels.dim() not in (1, 2):
            raise OfframpError("labels must be a tensor [N]; give one class number an image")
        dtype, what = torch.int64, "class numbers"
        if several(self.labels):
            dtype, what = torch.uint8, "of 0 and 1"
        if self.labels.dtype != dtype:
            raise OfframpError(f"labels are {self.labels.dtype}; give {dtype} {what}")
        if not len(self.labels):
            raise OfframpError("a split holds no images; give it at least one")
        count = len(self.labels)
        if len(self.images) != count:
            raise OfframpError(
                f"{len(self.images)} images but {count} labels; give one label for each image"
            )
        if self.groups is not None and len(self.groups) != count:
            raise OfframpError(
                f"{len(self.groups)} groups but {count} labels; give one group for each image"
            )

    def read(self, rows: Tensor) -> Tensor:
        """The images of `rows` [n], of one size: [n, C, H, W]. Raises OfframpError when they are no
        tensor."""
        images = None if isinstance(self.images, StoredImages) else self.images[rows]
        if not isinstance(images, Tensor) or len(images) != len(rows):
            raise OfframpError(
                f"images[rows] gave {kind_of(images)} for {len(rows)} rows; "
                "it must give a tensor [n, C, H, W]"
            )
        return images

    def digests(self, rows: Tensor) -> list[str] | None:
        """SHA-256, in hex, of what each image of `rows` [n] is read from: a file, or pixels. None where
        the images would have to be made for that."""
        if isinstance(self.images, StoredImages):
            return self.images.digests(rows)
        if isinstance(self.images, Tensor) and self.images.dim() in (2, 4):
            return [pixel_digest(image) for image in self.read(rows)]
        return None


@dataclass(frozen=True, eq=False)
class RawData:
    """What a source returns. A split that is None is held out of the split `pool`."""

    # the official training split; the very object `calibration`, where images that a network was trained
    # on are not at hand
    train: RawSplit
    test: RawSplit | None  # the official test split
    # the name of each class, or empty to number those of the training labels
    classes: tuple[str, ...] = ()
    validation: RawSplit | None = None  # the official validation split
    calibration: RawSplit | None = None  # images for thresholds
    # what was read (files, their hashes), in types of JSON
    provenance: Mapping[str, Any] = field(default_factory=dict)
    # the size that this data is usually given; a study may say otherwise
    geometry: Geometry = field(default_factory=Geometry)
    remarks: tuple[str, ...] = ()  # what to know of how it was read, a line each
    # `calibration` for a network that is trained already
    pool: Literal["train", "calibration"] = "train"
    cut_off: bool = False  # whether the source itself made its test split, of its training images

    @property
    def splits(self) -> dict[str, RawSplit]:
        """The splits that are there, by name."""
        every = {name: getattr(self, name) for name in SPLITS}
        return {name: split for name, split in every.items() if split is not None}


@dataclass(frozen=True)
class DeclaredCounts:
    """What is known of a public data set before its files are here."""

    train: tuple[int, ...]  # images of each class
    test: tuple[int, ...]  # the same of the test split
    # (C, H, W) as images come; where files differ in size, as the paper takes them
    shape: tuple[int, int, int]
    options: frozenset[str] = frozenset()  # options of the source that leave these counts as they are


@dataclass(frozen=True)
class DataSource:
    """A data set that studies know by name."""

    # takes `root` (the folder of its files, where it reads any) and options, all by name
    read: Callable[..., RawData]
    # what to put into that folder, and where it comes from; None where there is none
    fetch: str | None = None
    # what is known of it read with some options; None where nothing is
    counts: Callable[[Mapping[str, Any]], DeclaredCounts | None] = lambda _: None


def fixed_counts(counts: DeclaredCounts) -> Callable[[Mapping[str, Any]], DeclaredCounts | None]:
    """`DataSource.counts` of a data set that always has the same, unless another option is set."""
    return lambda options: counts if options.keys() <= counts.options else None
