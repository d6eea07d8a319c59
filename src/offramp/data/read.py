"""The chosen images of a split, in memory or as files to read later, and the hashes of what they are."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

import psutil
import torch
from PIL import Image

from offramp.data.dataset import FileSplit, Split, moments, statistics
from offramp.data.images.decode import in_threads
from offramp.data.images.files import Files, Opened, pixel_digest
from offramp.data.images.geometry import Geometry
from offramp.data.images.own import DatasetImages
from offramp.data.images.scan import check_unchanged, made_of, scan
from offramp.data.progress import Pace
from offramp.data.splits import Subset
from offramp.data_spec import Loader
from offramp.errors import OfframpError
from offramp.hashing import digest, plain

MEMORY_SHARE = 4  # images stay in memory while they take less than one in so many free bytes


@dataclass(frozen=True, eq=False)
class LoadedSplit:
    """A split that was read.

    part: what it holds: without the images that were skipped.
    digests: [n] SHA-256, in hex, of what each image was read from (a file, or pixels before any
        geometry).  skipped: names of the images that were damaged.
    mean, std: per channel, of pixels scaled to [0, 1].
    """

    split: Split | FileSplit
    part: Subset
    digests: list[str]
    skipped: list[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def streams(part: Subset, geometry: Geometry, loader: Loader, whole: bool) -> bool:
    """Whether a part's images are read anew whenever they are needed, and not kept in memory.

    whole: whether all of every image is needed, and not only what the geometry leaves of it. `auto`
    streams then, and where the pixels are too many for the memory that is free.
    """
    source = part.source.images
    if not isinstance(source, Opened) or loader == "resident":
        return False
    if isinstance(source, DatasetImages) and source.texts:
        return False  # they are small
    if loader == "streaming" or whole:
        return True
    if not isinstance(source, (Files, DatasetImages)) and geometry == Geometry():
        return False  # what is compressed in memory is small
    side = geometry.size
    size = len(part.rows) * (3 * side * side if side else _first(part, source, geometry))
    return size > int(psutil.virtual_memory().available) // MEMORY_SHARE


def _first(part: Subset, source: Opened, geometry: Geometry) -> int:
    """Bytes of the first image that can be read; 0 where none can, which `take` will say."""
    for row in part.rows.tolist():
        with suppress(OfframpError):
            return geometry.of(source.open(row)).nbytes
    return 0


def take(part: Subset, geometry: Geometry, on_error: Literal["fail", "skip"] = "fail") -> LoadedSplit:
    """Decode, scale and crop the images of a part, in parallel where they are files.

    Raises OfframpError naming an image that is damaged, unless `on_error` is `skip`, and one whose
    size differs where no size is asked for.
    """
    source = part.source.images
    one_by_one = isinstance(source, Files) or geometry != Geometry() or on_error == "skip"
    if isinstance(source, Opened) and one_by_one:
        return _opened(part, source, geometry, on_error)
    pixels = part.source.read(part.rows)
    digests = (
        source.digests(part.rows) if isinstance(source, Opened) else list(map(pixel_digest, pixels))
    )
    split = Split(geometry.of_batch(pixels), part.labels)
    return LoadedSplit(split, part, digests, [], *statistics(split.images))


def take_files(
    part: Subset, geometry: Geometry, on_error: Literal["fail", "skip"], whole: bool, hold: bool
) -> LoadedSplit:
    """A part whose images are made when they are asked for, after one pass over all of them.

    whole: training images are cut from all of the image.  hold: keep the decoded images in memory.

    Raises OfframpError as `take` does.
    """
    source = part.source.images
    assert isinstance(source, Opened)
    found, hashes = scan(part, source, geometry, on_error == "skip")
    good = torch.ones(len(part.rows), dtype=torch.bool)
    good[list(found.damaged)] = False
    left = part.only(good)
    digests = [sha for sha, kept in zip(hashes, good.tolist(), strict=True) if kept]
    held = _held(left, source, geometry) if hold else None
    if hold:
        check_unchanged(left, source, digests)
    split = FileSplit(
        source,
        rows=left.rows,
        geometry=geometry,
        labels=left.labels,
        shape=found.shape,
        digest=found.digest,
        content=digest([digests, plain(geometry)]) if whole else None,
        held=held,
        files=tuple(digests),
        dtype=torch.uint8 if found.counts else torch.float32,
    )
    skipped = [source.name(row) for row in part.rows[~good].tolist()]
    channels = found.shape[0]
    mean, std = moments(found.counts) if found.counts else ((0.0,) * channels, (1.0,) * channels)
    return LoadedSplit(split, left, digests, skipped, mean, std)


def _held(part: Subset, source: Opened, geometry: Geometry) -> tuple[Image.Image, ...]:
    pace = Pace("decoding images", len(part.rows))
    opened = (source.open(row) for row in pace.over(part.rows.tolist()))
    return tuple(geometry.whole(image) for image in opened if isinstance(image, Image.Image))


def digests_of(part: Subset) -> list[str]:
    """SHA-256, in hex, of what each image of a part is read from."""
    found = part.source.digests(part.rows)
    return list(map(pixel_digest, part.source.read(part.rows))) if found is None else found


def _opened(part: Subset, source: Opened, geometry: Geometry, on_error: str) -> LoadedSplit:
    make = partial(made_of, source, geometry, on_error == "skip")
    images, rows = in_threads(make, part.rows.tolist(), source.name)
    kept = torch.isin(part.rows, torch.tensor(rows))
    skipped = [source.name(row) for row in part.rows[~kept].tolist()]
    left = part.only(kept)
    split = Split(images, left.labels)
    return LoadedSplit(split, left, source.digests(left.rows), skipped, *statistics(images))
