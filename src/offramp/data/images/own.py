"""Images of a user's own Dataset: made one at a time, whenever they are needed, under a seed."""

from __future__ import annotations

import os
import random
import tempfile
import threading
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from offramp.augment import View
from offramp.data.images.files import of_eight_bits, pixel_digest
from offramp.data.images.geometry import picture
from offramp.errors import OfframpError, in_line
from offramp.inputs import is_text
from offramp.seeding import derive

EXIF_ORIENTATION = 0x0112
ON_ITS_SIDE = 5  # and more, of orientations


class Rows(Protocol):
    """Something that is read by row: a map-style Dataset of (image, label), or images alone."""

    def __getitem__(self, row: int, /) -> Any: ...


@dataclass(frozen=True)
class Form:
    """What an image is before it is made to fit."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def picture(self) -> bool:
        """Whether it can be scaled and cut as a picture."""
        return self.dtype == torch.uint8 and self.shape[0] in (1, 3)

    def __str__(self) -> str:
        return f"{'×'.join(map(str, self.shape))} {str(self.dtype).removeprefix('torch.')}"


@dataclass(frozen=True, eq=False)
class DatasetImages:
    """`offramp.data.images.files.Opened` of a Dataset. Every image is what it was when it was first
    read, or an error.

    split: its name.  samples: as they are evaluated.  forms, shas: [N] of each image, and its SHA-256 in
    hex.  kept: the images [N] themselves, where they need not be made again.
    drawn: the same samples under the user's random transform, for training alone; None without one.
    views: [N] SHA-256 of what that makes of each image in its first view.
    """

    split: str
    samples: Rows
    forms: tuple[Form, ...]
    shas: tuple[str, ...]
    kept: Rows | None = None
    drawn: Rows | None = None
    views: tuple[str, ...] = ()
    _one: Any = field(default_factory=threading.Lock)  # few Datasets are safe in threads

    def __len__(self) -> int:
        return len(self.shas)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"{self.split} row {row}" for row in range(len(self)))

    @property
    def pictures(self) -> bool:
        """Whether all images can be scaled and cut."""
        return all(form.picture for form in set(self.forms))

    @property
    def texts(self) -> bool:
        """Whether these are ids of tokens."""
        return any(is_text(form.shape) for form in set(self.forms))

    def __getitem__(self, rows: Tensor) -> Tensor:
        """rows: [n] int64. Returns [n, C, H, W]. Raises OfframpError when sizes differ."""
        listed = rows.tolist()
        first = self.forms[0]
        images = torch.empty((len(listed), *first.shape), dtype=first.dtype)
        for place, row in enumerate(listed):
            if self.forms[row] != first:
                raise OfframpError(
                    f"{self.name(row)} is {self.forms[row]} where {self.name(0)} is {first}; give all "
                    "images one size, number of channels and type (a study's data.size makes one size)"
                )
            images[place] = self._image(row)
        return images

    def name(self, row: int) -> str:
        return f"{self.split} sample {row}"

    def open(self, row: int) -> Image.Image | Tensor:
        """A picture; or [C, H, W] of floats, or of other channels than 1 and 3."""
        return _opened(self._image(row))

    def view(self, row: int, view: View, index: int) -> Image.Image | Tensor:
        """As `open`, under the user's random transform. index: of the image in the training split."""
        assert self.drawn is not None
        with self._one:
            return _opened(read_sample(self.drawn, row, view_seed(view, index), self.name(row))[0])

    def digests(self, rows: Tensor) -> list[str]:
        return [self.shas[row] for row in rows.tolist()]

    def _image(self, row: int) -> Tensor:
        if self.kept is not None:
            kept: Tensor = self.kept[row]
            return kept
        with self._one:
            image, _ = read_sample(self.samples, row, plain_seed(row), self.name(row))
        if pixel_digest(image) != self.shas[row]:
            raise OfframpError(
                f"{self.name(row)} has changed since it was first read; have the Dataset give the "
                "same image whenever it is asked, and open files anew in every process"
            )
        return image


class Spool:
    """Images one behind the other in a file without a name, which ends with this process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="offramp-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._places: list[tuple[int, Form]] = []
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
        self._places.append((self._end, form_of(image)))
        self._end += image.nbytes

    def __getitem__(self, row: int) -> Tensor:
        self._file.flush()
        start, form = self._places[row]
        wanted = int(np.prod(form.shape)) * form.dtype.itemsize
        data = bytearray(os.pread(self._file.fileno(), wanted, start))  # processes share one position
        return torch.frombuffer(data, dtype=form.dtype).reshape(form.shape)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's, NumPy's and torch's global generators begin at `seed`, and then are as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def plain_seed(row: int) -> int:
    """The seed for reading an image as it is evaluated."""
    return derive(0, "sample", row)


def view_seed(view: View, index: int) -> int:
    """The seed from which the user's random transform draws."""
    return derive(view.seed, "own transform", view.number, index)


def read_sample(samples: Rows, row: int, seed: int, where: str) -> tuple[Tensor, Any]:
    """An image [C, H, W], uint8 or float32, or a text [T] int64, and its label as it was given.

    Raises OfframpError, calling it `where`, for what is no (image, label), and where the Dataset fails.
    """
    with seeded(seed):
        try:
            sample = samples[row]
        except OfframpError:
            raise
        except Exception as error:
            raise sample_failed(where, error) from error
        return taken_apart(sample, where)


def sample_failed(where: str, error: Exception) -> OfframpError:
    """What to tell when the user's Dataset raised `error`: the place, and the reason in one line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    reason = in_line(error)
    return OfframpError(
        f"{where} failed at line {frame.lineno} of {Path(frame.filename).name}: "
        f"{type(error).__name__}: {reason}; correct the Dataset"
    )


def taken_apart(sample: Any, where: str) -> tuple[Tensor, Any]:
    """As `read_sample`, of a sample at hand."""
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:
        count = f" of {len(sample)}" if isinstance(sample, (tuple, list)) else ""
        raise OfframpError(f"{where} is a {type(sample).__name__}{count}; give (image, label)")
    return _image(sample[0], where), sample[1]


def pixels_of(images: Tensor, where: str) -> Tensor:
    """Pixels [N, …] of any type as uint8 or float32, ids of tokens [N, T] as int64. Raises OfframpError
    for other whole numbers."""
    if is_text(tuple(images.shape[1:])) and images.dtype in (torch.int32, torch.int64):
        return images.to(torch.int64)
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise OfframpError(f"{where} has {images.dtype} pixels; give uint8, or floats normalized")
    return images if images.dtype == torch.uint8 else images.to(torch.float32)


def check_channels_first(images: Tensor, where: str) -> None:
    """Raises OfframpError for pictures whose channels look to be last: their rows would be taken for
    channels, and a network would learn something of that. images: [N, C, H, W] or other."""
    if images.dim() != 4 or images.dtype != torch.uint8:
        return
    first, middle, last = images.shape[1:]
    if first not in (1, 3) and last in (1, 3, 4) and min(first, middle) > 4:
        remedy = "[H, W, 3], or PIL images" if last == 4 else "[C, H, W], as permute(2, 0, 1) does"
        raise OfframpError(
            f"{where} has pictures of shape {[first, middle, last]}, which as [C, H, W] have {first} "
            f"channels; give {remedy}"
        )


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of a picture turned as its EXIF data says; reads no pixel."""
    turned = image.getexif().get(EXIF_ORIENTATION, 1) >= ON_ITS_SIDE
    return image.size[::-1] if turned else image.size


def form_of(image: Tensor) -> Form:
    return Form(tuple(image.shape), image.dtype)


def _opened(image: Tensor) -> Image.Image | Tensor:
    return picture(image) if form_of(image).picture else image


def _image(image: Any, where: str) -> Tensor:
    """One image as [C, H, W], uint8 or float32; a picture upright, as its EXIF data says."""
    if isinstance(image, Image.Image):
        image = _array(image, where)
    if isinstance(image, np.ndarray):
        channels_last = image.ndim == 3 and image.shape[2] in (1, 3)
        image = torch.from_numpy(np.ascontiguousarray(image))
        image = image.permute(2, 0, 1) if channels_last else image
    if not isinstance(image, Tensor):
        raise OfframpError(
            f"{where} has a {type(image).__name__} for an image; give a PIL image, tensor or array"
        )
    image = image[None] if image.dim() == 2 else image
    if image.dim() not in (1, 3):
        raise OfframpError(
            f"{where} has an image of shape {list(image.shape)}; give [C, H, W], or ids of tokens [T]"
        )
    image = image.detach().cpu().as_subclass(Tensor)[None]
    check_channels_first(image, where)
    return pixels_of(image, where)[0]


def _array(image: Image.Image, where: str) -> np.ndarray:
    if image.getexif().get(EXIF_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    image = of_eight_bits(image, where)
    return np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
