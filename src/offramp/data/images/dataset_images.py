"""Images of a user's own Dataset: made one at a time, whenever they are needed, under a seed."""

from __future__ import annotations

import os
import tempfile
import threading
import traceback
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from offramp.augment import View
from offramp.data.images.files import EXIF_ORIENTATION, described, of_eight_bits, pixel_digest
from offramp.data.images.geometry import picture
from offramp.device import seeded_on_cpu
from offramp.errors import OfframpError, in_line, kind_of
from offramp.hashing import derive


class SampleRows(Protocol):
    """Something that is read by row: a map-style Dataset of (image, label), or images alone."""

    def __getitem__(self, row: int, /) -> Any: ...


@dataclass(frozen=True)
class SampleType:
    """What an image is before it is made to fit."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def picture(self) -> bool:
        """Whether it can be scaled and cut as a picture."""
        return self.dtype == torch.uint8 and self.shape[0] in (1, 3)

    def __str__(self) -> str:
        return described(self.shape, self.dtype)


@dataclass(frozen=True, eq=False)
class DatasetImages:
    """`offramp.data.images.files.StoredImages` of a Dataset.

    Every image is what it was when it was first read, or an error.
    """

    split: str  # its name
    samples: SampleRows  # as they are evaluated
    types: tuple[SampleType, ...]  # [N] of each image
    shas: tuple[str, ...]  # [N] SHA-256 of each image, in hex
    memory: SampleRows | None = None  # the images [N] themselves, where they need not be made again
    # the same samples under the user's random transform, for training alone; None without one
    transformed: SampleRows | None = None
    views: tuple[str, ...] = ()  # [N] SHA-256 of what that makes of each image in its first view
    _lock: Any = field(default_factory=threading.Lock)  # few Datasets are safe in threads

    def __len__(self) -> int:
        return len(self.shas)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"{self.split} row {row}" for row in range(len(self)))

    @property
    def pictures(self) -> bool:
        """Whether all images can be scaled and cut."""
        return all(kind.picture for kind in set(self.types))

    def name(self, row: int) -> str:
        return f"{self.split} sample {row}"

    def open(self, row: int) -> Image.Image | Tensor:
        """A picture; or [C, H, W] of floats, or of other channels than 1 and 3."""
        if self.memory is not None:
            return _opened(self.memory[row])
        with self._lock:
            image, _ = read_sample(self.samples, row, plain_seed(row), self.name(row))
        if pixel_digest(image) != self.shas[row]:
            raise OfframpError(
                f"{self.name(row)} has changed since it was first read; have the Dataset give the "
                "same image whenever it is asked, and open files anew in every process"
            )
        return _opened(image)

    def view(self, row: int, view: View, index: int) -> Image.Image | Tensor:
        """As `open`, under the user's random transform. index: of the image in the training split."""
        assert self.transformed is not None
        with self._lock:
            image, _ = read_sample(self.transformed, row, view_seed(view, index), self.name(row))
        return _opened(image)

    def digests(self, rows: Tensor) -> list[str]:
        return [self.shas[row] for row in rows.tolist()]


class Spool:
    """Images one behind the other in a file without a name, which ends with this process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="offramp-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._places: list[tuple[int, SampleType]] = []
        self._end = 0

    def append(self, image: Tensor) -> None:
        """Raises OfframpError where there is no room."""
        try:
            self._file.write(image.contiguous().numpy().data)
        except OSError as error:
            raise OfframpError(
                f"{tempfile.gettempdir()} cannot take the images ({error.strerror}); set TMPDIR to a "
                "folder with more room"
            ) from error
        self._places.append((self._end, type_of(image)))
        self._end += image.nbytes

    def __getitem__(self, row: int) -> Tensor:
        self._file.flush()
        start, kind = self._places[row]
        size = int(np.prod(kind.shape)) * kind.dtype.itemsize
        data = bytearray(os.pread(self._file.fileno(), size, start))  # processes share one position
        return torch.frombuffer(data, dtype=kind.dtype).reshape(kind.shape)


def plain_seed(row: int) -> int:
    """The seed for reading an image as it is evaluated."""
    return derive(0, "sample", row)


def view_seed(view: View, index: int) -> int:
    """The seed from which the user's random transform draws."""
    return derive(view.seed, "own transform", view.number, index)


def read_sample(samples: SampleRows, row: int, seed: int, where: str) -> tuple[Tensor, Any]:
    """One sample of a Dataset, read under a seed. seed: of the global generators meanwhile; where: what
    errors call it.

    Returns:
        An image [C, H, W], uint8 or float32; and its label as the Dataset has it.

    Raises:
        OfframpError: for what is no (image, label), and where the Dataset fails.
    """
    with seeded_on_cpu(seed):
        try:
            sample = samples[row]
        except OfframpError:
            raise
        except Exception as error:
            raise sample_failed(where, error) from error
        return as_sample(sample, where)


def sample_failed(where: str, error: Exception) -> OfframpError:
    """What to say when the user's Dataset raised `error`: the place, and the reason in one line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    reason = in_line(error)
    return OfframpError(
        f"{where} failed at line {frame.lineno} of {Path(frame.filename).name}: "
        f"{type(error).__name__}: {reason}; correct the Dataset"
    )


def as_sample(sample: Any, where: str) -> tuple[Tensor, Any]:
    """What `read_sample` returns, of what a Dataset returned."""
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:
        count = f" of {len(sample)}" if isinstance(sample, (tuple, list)) else ""
        raise OfframpError(f"{where} is {kind_of(sample)}{count}; give (image, label)")
    image = sample[0]
    if isinstance(image, Image.Image):
        image = _upright(image, where)
    if isinstance(image, np.ndarray):
        channels_last = image.ndim == 3 and image.shape[2] in (1, 3)
        image = torch.from_numpy(np.ascontiguousarray(image))
        image = image.permute(2, 0, 1) if channels_last else image
    if not isinstance(image, Tensor):
        raise OfframpError(
            f"{where} has {kind_of(image)} for an image; give a PIL image, tensor or array"
        )
    image = image[None] if image.dim() == 2 else image
    if image.dim() != 3:
        raise OfframpError(f"{where} has an image of shape {list(image.shape)}; give [C, H, W]")
    return as_pixels(image.detach().cpu().as_subclass(Tensor)[None], where)[0], sample[1]


def as_pixels(images: Tensor, where: str) -> Tensor:
    """Pixels [N, …] of any type as uint8 or float32. Raises OfframpError for other whole numbers, and
    for pictures whose channels look to be last: their rows would be taken for channels, and a network
    would learn something of that."""
    if images.dtype != torch.uint8:
        if not images.is_floating_point():
            raise OfframpError(f"{where} has {images.dtype} pixels; give uint8, or floats normalized")
        return images.to(torch.float32)
    if images.dim() == 4:
        first, middle, last = images.shape[1:]
        if first not in (1, 3) and last in (1, 3, 4) and min(first, middle) > 4:
            remedy = "[H, W, 3], or PIL images" if last == 4 else "[C, H, W], as permute(2, 0, 1) does"
            raise OfframpError(
                f"{where} has pictures of shape {[first, middle, last]}, which as [C, H, W] have "
                f"{first} channels; give {remedy}"
            )
    return images


def type_of(image: Tensor) -> SampleType:
    """Of an image [C, H, W], or a text [T]."""
    return SampleType(tuple(image.shape), image.dtype)


def _opened(image: Tensor) -> Image.Image | Tensor:
    return picture(image) if type_of(image).picture else image


def _upright(image: Image.Image, where: str) -> np.ndarray:
    """A picture turned as its EXIF data says: [H, W] or [H, W, 3] uint8."""
    if image.getexif().get(EXIF_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    image = of_eight_bits(image, where)
    return np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
