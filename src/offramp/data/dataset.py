"""A data set as the engine sees it: four splits, of images in memory or in files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from offramp.augment import Augment, View, clash
from offramp.data.images import file_hashes
from offramp.data.images.dataset_images import DatasetImages
from offramp.data.images.files import Files, StoredImages
from offramp.data.images.geometry import Geometry
from offramp.data.views import cut_out
from offramp.data_spec import SPLITS
from offramp.errors import OfframpError
from offramp.inputs import Shape
from offramp.labels import several


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Images and their labels. Treat the tensors as read-only: the digest is computed once.
    `RawSplit`, which splits are read from, has checked the labels.

    Raises:
        OfframpError: for images of other shapes or types, none, or values that are not finite.
    """

    # [N, C, H, W], uint8 in 0..255, or float32 taken as already normalized
    images: Tensor
    labels: Tensor  # [N] int64, or [N, C] uint8 of several labels an image

    def __post_init__(self) -> None:
        images = self.images
        if images.dim() != 4 or images.dtype not in (torch.uint8, torch.float32):
            raise OfframpError(f"images are {_described(images)}; give [N, C, H, W] as uint8 or float32")
        if not images.numel():
            raise OfframpError("a split holds no images; give it at least one")
        if images.is_floating_point() and not bool(images.isfinite().all()):
            raise OfframpError("images hold NaN or infinity; clean the data")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({_described(self.images)})"

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of shape, type, images and labels; the same on every device."""
        sha = hashlib.sha256(f"{tuple(self.images.shape)} {self.images.dtype}".encode())
        if several(self.labels):
            sha.update(str(tuple(self.labels.shape)).encode())
        for tensor in (self.images, self.labels):
            sha.update(tensor.detach().cpu().contiguous().numpy().data)
        return sha.hexdigest()

    @property
    def shape(self) -> Shape:
        """(C, H, W) of one image."""
        return tuple(self.images.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self.images.dtype

    def read(self, rows: Tensor) -> Tensor:
        """Images [n, C, H, W]. rows: [n] int64."""
        return self.images[rows]

    def to(self, device: torch.device | str) -> Split:
        """The same split with its tensors on `device`."""
        return Split(self.images.to(device), self.labels.to(device))


def check_labels(name: str, classes: Sequence[str], labels: Mapping[str, Tensor]) -> None:
    """Raise OfframpError for fewer than two classes, and for a label outside of them. labels: by split,
    as of `RawSplit`."""
    if len({several(numbers) for numbers in labels.values()}) > 1:
        raise OfframpError(
            f"some splits of data set '{name}' have one class an image and some several labels; give "
            "all of them alike"
        )
    for split, numbers in labels.items():
        if not len(numbers):  # images that a network was trained on, and that are not at hand
            continue
        if several(numbers):
            if numbers.shape[1] != len(classes) or int(numbers.max()) > 1:
                raise OfframpError(
                    f"the {split} split of data set '{name}' has labels {list(numbers.shape)} up to "
                    f"{int(numbers.max())}; give 0 or 1 for each of {len(classes)} labels"
                )
            continue
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high >= len(classes):
            raise OfframpError(
                f"the {split} split of data set '{name}' has label {low if low < 0 else high}, outside "
                f"0 to {len(classes) - 1}; correct the labels or name every class"
            )
    if len(classes) < 2:
        raise OfframpError(f"data set '{name}' has {len(classes)} class; it needs two or more")


@dataclass(frozen=True)
class ImageDraw:
    """What is drawn at random for an image before it is in a batch."""

    box: Sequence[float] | None = None  # of `cut_draws`, what it is cut by; None: it is not cut
    view: View | None = None  # the view for which the user's own transform draws; None: it does not


NOTHING_DRAWN = ImageDraw()


@dataclass(frozen=True, eq=False)
class FileSplit:
    """A split whose images are made, from files or a user's Dataset, whenever they are asked for."""

    source: StoredImages  # the images
    rows: Tensor  # which of them, [N] int64 on the CPU
    geometry: Geometry  # what is made of them
    labels: Tensor  # [N] int64, or [N, C] uint8 of several labels an image
    shape: Shape  # (C, H, W) of every image
    digest: str  # that of the split of these pixels in memory: how images are read changes no key
    # hash of the files themselves, where training images are cut from more than the pixels of `digest`
    # show; else None
    content: str | None = None
    memory: tuple[Image.Image, ...] | None = None  # the images, decoded, where they stay in memory
    files: tuple[str, ...] = ()  # [N] SHA-256, in hex, of the file of each image
    dtype: torch.dtype = torch.uint8  # uint8, or float32 as of `Split`

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int, augment: Augment | None, draw: ImageDraw) -> np.ndarray:
        """One image, in the random view that is drawn for it; where nothing is drawn, as it is. draw:
        what the user's own transform and the random box go by.

        Returns:
            [H, W, C].

        Raises:
            OfframpError: naming a file that is damaged, or an image that came out in another shape.
        """
        row = int(self.rows[index])
        if draw.view is not None and isinstance(self.source, DatasetImages):
            stored = self.source.view(row, draw.view, index)
        else:
            stored = self.source.open(row) if self.memory is None else self.memory[index]
        channels, height, width = self.shape
        if isinstance(stored, Tensor):
            image = self.geometry.of(stored).permute(1, 2, 0).numpy()
        elif augment is None or draw.box is None:
            image = np.asarray(self.geometry.sized(self.geometry.toned(stored)))
        else:
            image = np.asarray(cut_out(augment, self.geometry.whole(stored), draw.box, (height, width)))
        image = image if image.ndim == 3 else image[..., None]
        if image.shape != (height, width, channels) or str(image.dtype) != _type(self.dtype):
            raise OfframpError(
                f"{self.source.name(row)} comes out of its random transform as {list(image.shape)} "
                f"{image.dtype}, and without it as {[height, width, channels]} {_type(self.dtype)}; "
                "have both end alike, or set a study's data.size"
            )
        return image

    def read(self, rows: Tensor) -> Tensor:
        """Images as they are: [n, C, H, W]. rows: [n] int64, at least one."""
        images = np.stack([self.image(row, None, NOTHING_DRAWN) for row in rows.tolist()])
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    def changed(self, key: str) -> str | None:
        """An image file that is no longer what the digests were made of, if one is noticed. key: chooses
        the files that are read for that (see `file_hashes.changed`).

        Raises:
            OfframpError: naming a file that cannot be read.
        """
        if self.memory is not None or not isinstance(self.source, Files):
            return None
        ids = (self.source.ids[row] for row in self.rows.tolist())
        name = file_hashes.changed(self.source.root, dict(zip(ids, self.files, strict=True)), key)
        return None if name is None else str(self.source.root / name)

    def to(self, device: torch.device | str) -> FileSplit:
        """The same split with its labels on `device`."""
        return replace(self, labels=self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Data:
    """Four splits of one data set.

    Attributes:
        name: For people; no result depends on it.
        classes: The name of each class, at least two; labels index it.
        train: What trains; without any images where a network was trained elsewhere.
        validation: For stopping and selection. It may be the very same object as `test`, as in the
            paper.
        calibration: For thresholds.
        test: Touched once.
        mean: Of each channel, what pixels scaled to [0, 1] are normalized by: of the training split
            alone, or what `DataSpec.normalize` says; zeros for float images, which are taken as already
            normalized.
        std: The same of the deviation; ones for float images.
        provenance: Source files and counts, in types of JSON; no result depends on it.
        augment: What happens to training images whenever something trains on them; never to those of
            the other splits, nor to the training split in eval mode.

    Raises:
        OfframpError: when the splits disagree in shape or type, a label is no class's number, the train
            split shows one class only, or the images cannot be augmented so.
    """

    name: str
    classes: tuple[str, ...]
    train: Split | FileSplit
    validation: Split | FileSplit
    calibration: Split | FileSplit
    test: Split | FileSplit
    mean: tuple[float, ...]
    std: tuple[float, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    augment: Augment | None = None

    def __post_init__(self) -> None:
        check_labels(self.name, self.classes, {n: s.labels for n, s in self.splits.items()})
        like = self.train
        for name, split in self.splits.items():
            where = f"the {name} split of data set '{self.name}'"
            if split.shape != like.shape or split.dtype != like.dtype:
                raise OfframpError(
                    f"{where} has images {_described(split)} where train has {_described(like)}; "
                    "make all splits alike"
                )
        if len(self.train) and bool((self.train.labels == self.train.labels[:1]).all()):
            raise OfframpError(
                f"the train split of data set '{self.name}' shows one class only; "
                "give images of two or more"
            )
        channels = like.shape[0]
        if not len(self.mean) == len(self.std) == channels or min(self.std) <= 0:
            raise OfframpError(
                f"mean and std of data set '{self.name}' must be {channels} numbers each, "
                "one a channel, std above zero"
            )
        if self.augment is not None:
            check_augment(self.augment, like.shape, like.dtype)

    @property
    def splits(self) -> dict[str, Split | FileSplit]:
        """The four splits by name."""
        return {name: getattr(self, name) for name in SPLITS}

    @property
    def images_an_epoch(self) -> dict[str, int]:
        """How many images an epoch runs through, by split."""
        return {"train": len(self.train), "validation": len(self.validation)}

    @property
    def several(self) -> bool:
        """Whether images have several labels each, and not one class."""
        return several(self.train.labels)

    @property
    def shape(self) -> Shape:
        """(C, H, W) of one image."""
        return self.train.shape

    def sample(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """At most `count` training images as they are stored, [N, C, H, W], spread over the split,
        with `mean` and `std`, [C]."""
        total = len(self.train)
        rows = torch.arange(min(count, total)) * total // min(count, total)
        return self.train.read(rows), torch.tensor(self.mean), torch.tensor(self.std)

    def to(self, device: torch.device | str) -> Data:
        """The same data with every tensor on `device`; a split used twice stays one."""
        once = {id(split): split.to(device) for split in self.splits.values()}
        moved: dict[str, Any] = {name: once[id(split)] for name, split in self.splits.items()}
        return replace(self, **moved)


def pixels(split: Split | FileSplit, most: int | None = None) -> Tensor:
    """`[n, C, H, W]`: all images of a split that is in memory, and of one in files the first `most`, all
    by default."""
    if isinstance(split, Split):
        return split.images
    return split.read(torch.arange(len(split))[:most])


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (of the population) per channel, of pixels scaled to [0, 1].

    Exact integer sums: no order of summation, number of threads or device changes a bit. A channel that
    is constant has a deviation of 1, so that normalizing it gives zeros.

    Args:
        images: [N, C, H, W]; uint8, or float32, which is already normalized: zeros and ones.
    """
    if images.is_floating_point():
        return (0.0,) * images.shape[1], (1.0,) * images.shape[1]
    return moments(value_counts(images).tolist())


def value_counts(images: Tensor) -> Tensor:
    """How often each value occurs in each channel of [N, C, H, W] uint8: [C, 256] int64."""
    return torch.stack([torch.bincount(c.flatten(), minlength=256) for c in images.unbind(1)])


def moments(counts: Sequence[Sequence[int]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What `statistics` gives, from the counts of `value_counts`."""
    means, deviations = [], []
    for channel in counts:
        total = sum(channel)
        first = sum(value * count for value, count in enumerate(channel))
        second = sum(value * value * count for value, count in enumerate(channel))
        means.append(first / total / 255)
        deviations.append(math.sqrt(total * second - first * first) / total / 255 or 1.0)
    return tuple(means), tuple(deviations)


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Pixels as float32 `(x / 255 - mean) / std`, on the device and in the memory format they are in.

    Args:
        images: [B, C, H, W] uint8. Float images, which are already normalized, come back as they
            are.
        mean: [C] float32, in units of [0, 1], on the same device.
        std: [C] float32, as `mean`.
    """
    if images.dtype != torch.uint8:
        return images
    scale = (255 * std).reciprocal()
    shift = -mean / std
    if images.shape[1] > 1 and images.is_contiguous(memory_format=torch.channels_last):
        # The same arithmetic over whole rows of pixels: kernels are slow on runs of three numbers.
        count, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).reshape(count * height, width * channels).to(torch.float32)
        rows = rows.mul_(scale.repeat(width)).add_(shift.repeat(width))
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)
    return images.to(torch.float32).mul_(scale[:, None, None]).add_(shift[:, None, None])


def check_augment(augment: Augment, shape: Shape, dtype: torch.dtype) -> None:
    """Raises OfframpError where training examples of that shape and type cannot be augmented so."""
    if fault := clash(augment):
        raise OfframpError(f"augment.{fault[0]} {fault[1]}")
    for name in ("jitter", "resized_crop"):
        if getattr(augment, name) and dtype != torch.uint8:
            raise OfframpError(
                f"augment.{name} needs uint8 images, and these are float32, taken as normalized; "
                "leave it out"
            )
    if augment.pad == "reflect" and augment.crop >= min(shape[1:]):
        raise OfframpError(
            f"augment.crop of {augment.crop} px cannot reflect images of {shape[1]}×{shape[2]} px; "
            "make it smaller"
        )
    if augment.resized_crop and shape[0] not in (1, 3):
        raise OfframpError(
            f"augment.resized_crop works on 1 or 3 channels, and images have {shape[0]}; leave it out"
        )


def _described(images: Split | FileSplit | Tensor) -> str:
    return f"{list(images.shape)} {_type(images.dtype)}"


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
