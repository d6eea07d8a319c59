"""Image files: looked for in folders, opened one at a time by Pillow, read into one tensor."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from offramp.data.images import file_hashes
from offramp.data.progress import LoggedProgress, pool
from offramp.errors import OfframpError, in_line
from offramp.preprocessing import FORMATS, check_png, mode_of

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "calibration": ("calibration", "calib"),
    "test": ("test", "testing"),
}
"""How folders and tables spell each split, in lower case."""

EXIF_ORIENTATION = 0x0112
ON_ITS_SIDE = 5  # and more, of orientations


@runtime_checkable
class StoredImages(Protocol):
    """Images that are opened one by one, and may differ in size."""

    def __len__(self) -> int: ...

    @property
    def ids(self) -> tuple[str, ...]:
        """[N] what to call each image where the data lies elsewhere: no absolute path."""

    def name(self, row: int) -> str:
        """What to call an image in a message, such as the path of its file."""

    def open(self, row: int) -> Image.Image | Tensor:
        """An image as it is stored, in any thread.

        Returns:
            A picture: upright, RGB or L, 8 bits a channel, of any size. [C, H, W] of what is none.

        Raises:
            OfframpError: naming an image that is damaged.
        """

    def digests(self, rows: Tensor) -> list[str]:
        """SHA-256, in hex, of the files (not the pixels) of `rows` [n]."""


@dataclass(frozen=True, eq=False)
class Files:
    """Image files below one folder."""

    root: Path  # the folder
    ids: tuple[str, ...]  # the path of each file below it, with forward slashes

    def __len__(self) -> int:
        return len(self.ids)

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


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Image files that lie in other files."""

    read: Callable[[int], bytes]  # the bytes of an image file, by its row
    names: tuple[str, ...]  # [N] what to call each in an error
    ids: tuple[str, ...]  # [N] names without folders

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        return self.names[row]

    def open(self, row: int) -> Image.Image:
        return open_image(self.read(row), self.names[row])

    def digests(self, rows: Tensor) -> list[str]:
        return [hashlib.sha256(self.read(row)).hexdigest() for row in rows.tolist()]


def open_image(file: Path | bytes, name: str) -> Image.Image:
    """An image file as RGB, turned upright as its EXIF data says.

    Gray is repeated, transparency dropped; of 16 bits the upper eight are taken, of an animation the
    first frame. A bundle makes the same of a file: `offramp.preprocessing.Preprocessing.pixels`. name:
    what errors call it.

    Raises:
        OfframpError: for an image that is damaged, or deeper than 16 bits.
    """
    try:
        source = BytesIO(file) if isinstance(file, bytes) else file
        with Image.open(source, formats=FORMATS) as stored:
            check_png(stored)
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
    """Of 16 bits the upper eight; a palette with transparency as colors with it.

    Raises:
        OfframpError: calling the image `name`, where it is deeper.
    """
    if mode_of(image).startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("F", "I"):
        raise OfframpError(f"{name} has PIL mode {image.mode}; give images of 8 or 16 bits a channel")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")  # Pillow warns where this step is left out
    return image


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image in Pillow's mode `mode`; itself where it has that already."""
    return image if image.mode == mode else image.convert(mode)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of a picture turned as its EXIF data says; reads no pixel."""
    on_its_side = image.getexif().get(EXIF_ORIENTATION, 1) >= ON_ITS_SIDE
    return image.size[::-1] if on_its_side else image.size


def pixels(image: Image.Image) -> Tensor:
    """An RGB or L image as [3 or 1, H, W] uint8."""
    array = torch.from_numpy(np.array(image))
    return array[None] if array.dim() == 2 else array.permute(2, 0, 1).contiguous()


def pixel_digest(image: Tensor) -> str:
    """SHA-256, in hex, of an image [C, H, W]."""
    return hashlib.sha256(image.contiguous().numpy().data).hexdigest()


def stacked(
    read: Callable[[int], Tensor | None], rows: Sequence[int], name: Callable[[int], str]
) -> tuple[Tensor, list[int]]:
    """Images read in parallel, as one tensor. read: an image [C, H, W] by its row; None leaves it out.
    name: what errors call a row.

    Returns:
        [n, C, H, W], and the rows that they are of.

    Raises:
        OfframpError: where two shapes differ or no row is left, and what `read` raises, at the first row
            (in order) that fails. No more images are read then.
    """
    with pool(len(rows)) as threads:
        good: list[int] = []
        images = torch.empty(0)
        try:
            read_ahead = LoggedProgress("reading images", len(rows)).over(threads.map(read, rows))
            for row, image in zip(rows, read_ahead, strict=True):
                if image is None:
                    continue
                if not good:
                    images = image.new_empty((len(rows), *image.shape))
                if image.shape != images.shape[1:] or image.dtype != images.dtype:
                    raise OfframpError(
                        f"{name(row)} is {described(image.shape, image.dtype)} where {name(good[0])} is "
                        f"{described(images.shape[1:], images.dtype)}; give all images "
                        "one size, number of channels and type (data.size makes one size)"
                    )
                images[len(good)] = image
                good.append(row)
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    if not good:
        raise OfframpError(f"none of {len(rows)} images can be read, the first is {name(rows[0])}")
    return images[: len(good)], good


def described(shape: Sequence[int], dtype: torch.dtype) -> str:
    """`3×32×32 uint8`."""
    return f"{'×'.join(map(str, shape))} {str(dtype).removeprefix('torch.')}"


def check_folder(root: Path, fetch: str) -> None:
    """Raises OfframpError, saying what to fetch, unless `root` is a folder."""
    if not root.is_dir():
        raise OfframpError(f"there is no folder {root}; fetch {fetch}, or set data.root")


def folders(path: Path) -> list[Path]:
    """The folders in a folder, by name; hidden ones are passed over."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not _hidden(p.name))


def class_files(root: Path, split: Path, classes: Sequence[str]) -> tuple[Files, Tensor]:
    """The image files in the folders of classes, each class in the order of the files' names. split:
    where these folders lie, at or below `root`, that of the data set.

    Returns:
        The files, class by class, and their class numbers [N].

    Raises:
        OfframpError: for a class without images.
    """
    files = [sorted(image_files(root, split / name)) for name in classes]
    for name, ids in zip(classes, files, strict=True):
        if not ids:
            raise OfframpError(f"class folder {split / name} holds no images; add some or remove it")
    labels = torch.repeat_interleave(torch.tensor([len(ids) for ids in files]))
    return Files(root, tuple(name for ids in files for name in ids)), labels


def image_files(root: Path, folder: Path) -> Iterator[str]:
    """Paths below `root` of the image files in `folder`, at any depth, also behind links; hidden ones
    are passed over. Raises OfframpError for a pipe or a device with an image's ending."""
    waiting = [folder]
    seen = set()
    while waiting:
        here = waiting.pop()
        if here.resolve() in seen:  # links to folders may lead back to one above
            continue
        seen.add(here.resolve())
        with os.scandir(here) as entries:
            for entry in entries:
                if _hidden(entry.name):
                    continue
                path = here / entry.name
                target = path if entry.is_symlink() else entry  # an entry asks no disk
                if target.is_dir():
                    waiting.append(path)
                elif path.suffix.lower() in SUFFIXES:
                    if not target.is_file() and path.exists():
                        raise OfframpError(f"{path} is a pipe or a device, and no file; remove it")
                    yield path.relative_to(root).as_posix()


def _hidden(name: str) -> bool:
    return name.startswith((".", "__"))
