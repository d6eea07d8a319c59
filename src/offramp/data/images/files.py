"""Images that are opened one at a time and may differ in size, such as files on disk."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from offramp.data.images import file_hashes
from offramp.data.images.decode import in_threads
from offramp.errors import OfframpError, in_line

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names for what those endings mean; it goes by content, and for an EPS it starts Ghostscript,
whatever the file is called. What a bundle reads is the same: `offramp.bundle.preprocessing.FORMATS`."""


@runtime_checkable
class Opened(Protocol):
    """`offramp.data.raw.ImageRows` whose images can also be opened one by one.

    ids: [N] what to call each image where the data lies elsewhere: no absolute path.
    """

    @property
    def ids(self) -> tuple[str, ...]: ...

    def name(self, row: int) -> str:
        """What to call an image in a message, such as the path of its file."""

    def open(self, row: int) -> Image.Image | Tensor:
        """An image as it is stored: upright, RGB or L, 8 bits a channel, of any size; [C, H, W] where it
        is no such picture. Safe in threads.

        Raises OfframpError naming an image that is damaged.
        """

    def digests(self, rows: Tensor) -> list[str]:
        """SHA-256, in hex, of the files (not the pixels) of `rows` [n]."""


@dataclass(frozen=True, eq=False)
class Files:
    """Image files below one folder.

    root: the folder.  ids: the path of each file below it, with forward slashes.
    """

    root: Path
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """rows: [n] int64. Returns [n, 3, H, W] uint8. Raises OfframpError when sizes differ."""
        return in_threads(lambda row: pixels(self.open(row)), rows.tolist(), self.name)[0]

    def only(self, rows: Tensor) -> Files:
        """The files of `rows` [n], in that order."""
        return Files(self.root, tuple(self.ids[row] for row in rows.tolist()))

    @property
    def paths(self) -> tuple[Path, ...]:
        """[N] where each file is."""
        return tuple(self.root / name for name in self.ids)

    def name(self, row: int) -> str:
        return str(self.root / self.ids[row])

    def open(self, row: int) -> Image.Image:
        return open_image(self.root / self.ids[row], self.name(row))

    def digests(self, rows: Tensor) -> list[str]:
        """Files that have not changed since they were last hashed are not read again."""
        return file_hashes.digests(self.root, [self.ids[row] for row in rows.tolist()])


def open_image(file: Path | bytes, name: str) -> Image.Image:
    """An image file as RGB, turned upright as its EXIF data says; gray is repeated, transparency
    dropped, of 16 bits the upper eight and of an animation the first frame taken. What a bundle makes
    of a file is the same: `offramp.bundle.preprocessing.Preprocessing.pixels`.

    Raises OfframpError, calling the image `name`, when it is damaged or deeper than that.
    """
    try:
        source = io.BytesIO(file) if isinstance(file, bytes) else file
        with Image.open(source, formats=FORMATS) as stored:
            ImageOps.exif_transpose(stored, in_place=True)  # every copy costs a tenth of decoding
            image = as_mode(of_eight_bits(stored, name), "RGB")
            image.load()
    except OfframpError:
        raise
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        reason = in_line(error)
        if isinstance(error, UnidentifiedImageError):  # whose text is the path again
            reason = f"it is none of {', '.join(FORMATS)}"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        raise OfframpError(f"{name} is no readable image ({reason}); replace or remove it") from error
    return image


def of_eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Of 16 bits the upper eight; a palette with transparency as colors with it. A PGM of 16 bits is
    called `I` by Pillow, as numbers of 32 bits are (so in `offramp.bundle.preprocessing.mode_of`).

    Raises OfframpError, calling the image `name`, where it is deeper.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("F", "I"):
        raise OfframpError(f"{name} has PIL mode {image.mode}; give images of 8 or 16 bits a channel")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")  # Pillow warns where this step is left out
    return image


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image in Pillow's mode `mode`; itself where it has that already."""
    return image if image.mode == mode else image.convert(mode)


def pixels(image: Image.Image) -> Tensor:
    """An RGB or L image as [3 or 1, H, W] uint8."""
    array = torch.from_numpy(np.array(image))
    return array[None] if array.dim() == 2 else array.permute(2, 0, 1).contiguous()


def pixel_digest(image: Tensor) -> str:
    """SHA-256, in hex, of an image [C, H, W]."""
    return hashlib.sha256(image.contiguous().numpy().data).hexdigest()
