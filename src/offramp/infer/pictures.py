"""Image files: found, looked at before anything is read, and read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from offramp.bundle.preprocessing import FORMATS, Preprocessing
from offramp.errors import OfframpError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Damaged:
    """A file that is no readable image, and why."""

    file: Path
    reason: str


def find(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The files themselves, and the images anywhere in folders, in order of their names; each once.

    Raises OfframpError for a path that is not there and for a folder without images.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise OfframpError(
                    f"the folder {path} holds no image ({', '.join(SUFFIXES)}); give another"
                )
            found |= dict.fromkeys(inside)
        elif path.exists():
            found[path] = None
        else:
            raise OfframpError(f"there is no image {path}; give files or folders")
    return tuple(found)


def check(files: Sequence[Path], how: Preprocessing) -> tuple[list[Path], list[Damaged]]:
    """The files that can be read, as far as their first bytes tell, and those that cannot. No pixel is
    decoded, so a mistake shows before the work.

    Raises OfframpError for the first image of a size or mode that the network does not take.
    """
    good, damaged = [], []
    for file in files:
        try:
            with Image.open(file, formats=FORMATS) as image:
                turned = image.getexif().get(0x0112, 1) >= 5  # EXIF: on its side
                width, height = image.size[::-1] if turned else image.size
                how.check(image.mode, width, height)
        except ValueError as error:
            raise OfframpError(f"{file} {error}") from None
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            damaged.append(Damaged(file, _reason(file, error)))
        else:
            good.append(file)
    return good, damaged


def read(file: Path, how: Preprocessing) -> NDArray[np.uint8] | Damaged:
    """[C, H, W], upright, or what is wrong with the file."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            return how.pixels(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return Damaged(file, _reason(file, error))


def read_all(
    files: Sequence[Path], how: Preprocessing, pool: ThreadPoolExecutor
) -> tuple[list[Path], NDArray[np.uint8], list[Damaged]]:
    """The files that could be read, their pixels [B, C, H, W], and those that could not."""
    found = list(pool.map(lambda file: read(file, how), files))
    damaged = [one for one in found if isinstance(one, Damaged)]
    pixels = [one for one in found if not isinstance(one, Damaged)]
    good = [file for file, one in zip(files, found, strict=True) if not isinstance(one, Damaged)]
    empty = np.zeros((0, how.channels, *how.size), dtype=np.uint8)
    return good, np.stack(pixels) if pixels else empty, damaged


def _reason(file: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # whose text is the path again
        return f"it is none of {', '.join(FORMATS)}"
    said = str(error).replace(f"'{file}'", "it").replace(str(file), "it")
    return " ".join(said.split()) or type(error).__name__
