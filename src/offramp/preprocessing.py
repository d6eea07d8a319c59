"""From an image file's picture to the pixels a network was trained on, described as data.

Only numpy and Pillow are used, so that a bundle can do the very same without torch. Arrays
need no Pillow.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

with suppress(ModuleNotFoundError):
    from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Of files, as Pillow calls them: it goes by content, and for an EPS it starts Ghostscript, whatever the
file is called."""
PIECE = 2**20  # bytes of a chunk that are in memory at once
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")  # of 16 bits, whose upper eight are taken
GRAY = ("1", "L", "LA", *DEEP)  # modes of Pillow whose pixels have no color
COLOR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")
LARGEST = 16_384  # pixels a side: an image of float32 is 3 GB then
EXTREME = 1e12  # of mean and 1 / std: beyond, float32 has no room for what they make
FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


def shown(below: Path) -> bool:
    """Whether a file is one that training reads, by its path below a folder: not hidden, nor what a Mac
    puts into archives."""
    return not any(part.startswith((".", "__")) for part in below.parts)


def mode_of(image: Image.Image) -> str:
    """Pillow's mode of a picture just opened; of a PGM of 16 bits, which it calls `I` as numbers of 32
    bits, `I;16`."""
    return "I;16" if image.mode == "I" and image.format == "PPM" else image.mode


def check_png(image: Image.Image) -> None:
    """Of a picture just opened, raise OSError for damaged pixels of a PNG: Pillow looks at no checksum
    of theirs, as libpng does."""
    file: IO[bytes] | None = getattr(image, "fp", None)
    if image.format != "PNG" or file is None:
        return
    place = file.tell()
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        if not head[4:].isalpha():
            raise OSError("it is damaged")
        left, actual = int.from_bytes(head[:4]), zlib.crc32(head[4:])
        while left and (piece := file.read(min(left, PIECE))):
            left, actual = left - len(piece), zlib.crc32(piece, actual)
        checksum = file.read(4)
        if head[4:] == b"IDAT" and actual != int.from_bytes(checksum):
            raise OSError("its pixels do not match their checksum")
    file.seek(place)


def why_unreadable(file: Path, error: Exception) -> str:
    """What an error says of a picture's file, in a line that does not name it again."""
    if isinstance(error, UnidentifiedImageError):  # whose text is the path
        return f"it is none of {', '.join(FORMATS)}"
    text = getattr(error, "strerror", None) or str(error)  # without a number and the path
    reason = text.replace(f"'{file}'", "it")
    return " ".join(reason.split()) or type(error).__name__


def upright(image: Image.Image) -> Image.Image:
    """A picture just opened, in memory, turned as its EXIF data says. Raises OSError for a damaged
    one."""
    check_png(image)
    mode = mode_of(image)
    image = ImageOps.exif_transpose(image)  # a copy, which no longer says what it was read from
    image.info.pop("exif", None)  # nor what was heeded: of a damaged one a second look would fail
    return image if image.mode == mode else image.convert(mode)


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a picture before a network sees it, in this order.

    Attributes:
        size: (height, width) of what the network takes.
        channels: 1 or 3. A gray picture is repeated for a network of three channels.
        mean: One a channel, in units of [0, 1].
        std: Likewise: pixels become `(x / 255 - mean) / std`.
        resize: None for pictures that must have `size` already; a number for the shorter side, in
            pixels, the other in proportion; a pair for (height, width) whatever the proportions.
        crop: Whether the middle of `size` is cut out afterwards.
        interpolation: Of Pillow, for the resize.
        gray: Whether a color picture is turned gray for a network of one channel; it is refused
            otherwise.

    Raises:
        ValueError: Values do not go together.
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | tuple[int, int] | None = None
    crop: bool = False
    interpolation: str = "bilinear"
    gray: bool = False

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem is not None:
            raise ValueError(problem)

    def as_json(self) -> dict[str, Any]:
        """Types of JSON; `from_json` reads them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def check(self, mode: str, width: int, height: int) -> None:
        """Raise ValueError unless a picture of this mode and size can be given; reads no pixel."""
        if mode not in GRAY + COLOR:
            raise ValueError(f"has mode {mode}; give 8 or 16 bits a channel, gray or color")
        if self.channels == 1 and mode in COLOR and not self.gray:
            raise ValueError(f"is in color (mode {mode}) and the network takes gray; convert it to L")
        after = self.resized(height, width)
        least = self.size if self.crop else None
        if after != self.size and (least is None or after[0] < least[0] or after[1] < least[1]):
            raise ValueError(
                f"is {width}×{height} pixels and the network takes {self.size[1]}×{self.size[0]}; "
                "resize it as the training images were"
            )

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """[C, H, W] of a picture, to be stacked and normalized. Raises ValueError as `check` does, and
        OSError for a damaged picture."""
        image = upright(image)
        self.check(image.mode, *image.size)
        # As training does: transparency is dropped, not blended, and gray is made of RGB.
        if image.mode in DEEP:
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # Pillow warns where this step is left out
        image = image if image.mode == "RGB" else image.convert("RGB")
        if self.channels == 1:
            image = image.convert("L")
        height, width = self.resized(image.height, image.width)
        if (width, height) != image.size:
            image = image.resize((width, height), Image.Resampling[self.interpolation.upper()])
        if self.crop:
            top, left = (height - self.size[0]) // 2, (width - self.size[1]) // 2
            image = image.crop((left, top, left + self.size[1], top + self.size[0]))
        array = np.asarray(image, dtype=np.uint8)
        return array[None] if self.channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))

    def batch(self, images: Iterable[Image.Image]) -> NDArray[np.uint8]:
        """`pixels` of each, [B, C, H, W]. Raises ValueError, which names the image by its number, for a
        damaged picture and one that the network does not take."""
        arrays = []
        for number, image in enumerate(images):
            if not isinstance(image, Image.Image):
                kind = type(image).__name__
                raise ValueError(f"image {number} is a {kind}; give Pillow images, or one array")
            try:
                arrays.append(self.pixels(image))
            except ValueError as error:
                raise ValueError(f"image {number} {error}") from None
            except (OSError, SyntaxError) as error:  # a file that Pillow reads only now
                raise ValueError(f"image {number} cannot be read ({error})") from None
        return np.stack(arrays) if arrays else np.zeros((0, self.channels, *self.size), np.uint8)

    def normalized(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[B, C, H, W] uint8 → float32, as training normalizes, in the same order of operations."""
        mean, std = (np.asarray(values, dtype=np.float32) for values in (self.mean, self.std))
        scale = np.reciprocal(np.float32(255) * std)[:, None, None]
        scaled: NDArray[np.float32] = pixels.astype(np.float32) * scale + (-mean / std)[:, None, None]
        return scaled

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """What a picture of this height and width is scaled to, before the middle is cut out."""
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        short = min(height, width)
        # The longer side is rounded down, as torchvision does.
        return self.resize * height // short, self.resize * width // short


def from_json(value: Any) -> Preprocessing:
    """What `as_json` gave, or anything else that a file holds. Raises ValueError in one line."""
    if not isinstance(value, Mapping):
        raise ValueError(f"must be an object, not {type(value).__name__}")
    tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    try:
        return Preprocessing(**tuples)
    except TypeError as error:
        raise ValueError(str(error).partition(") ")[2] or str(error)) from None


def _problem(p: Preprocessing) -> str | None:
    if not _whole(p.channels) or p.channels not in (1, 3):
        return f"pictures have 1 or 3 channels, the network takes {p.channels!r}"
    if not _sides(p.size):
        return f"size must be (height, width) in pixels, at most {LARGEST}, got {p.size!r}"
    if p.resize is not None and not _whole(p.resize) and not _sides(p.resize):
        return f"resize must be None, a number or (height, width), got {p.resize!r}"
    if p.interpolation not in FILTERS:
        return f"interpolation {p.interpolation!r} is none of {', '.join(FILTERS)}"
    for name, values, low in (("mean", p.mean, -EXTREME), ("std", p.std, 1 / EXTREME)):
        many = isinstance(values, tuple) and len(values) == p.channels
        if not many or not all(_number(v) and low <= v <= EXTREME for v in values):
            span = f"numbers from {low:g} to {EXTREME:g}"
            return f"{name} must be {p.channels} {span}, one a channel, got {values!r}"
    for name in ("crop", "gray"):
        if not isinstance(getattr(p, name), bool):
            return f"{name} must be true or false, got {getattr(p, name)!r}"
    return None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return _number(value) and isinstance(value, int) and 0 < value <= LARGEST


def _sides(pair: Any) -> bool:
    return isinstance(pair, tuple) and len(pair) == 2 and all(map(_whole, pair))
