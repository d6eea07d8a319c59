"""The chosen images of a split, in memory or as files to read later, and the hashes of what they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

import PIL
import psutil
import torch
from PIL import Image
from torch import Tensor

from offramp.data.dataset import FileSplit, Split, moments, statistics, value_counts
from offramp.data.images.dataset_images import DatasetImages
from offramp.data.images.files import Files, StoredImages, pixel_digest, stacked
from offramp.data.images.geometry import Geometry
from offramp.data.progress import LoggedProgress, pool
from offramp.data.splits import Subset
from offramp.data_spec import Loader
from offramp.errors import OfframpError
from offramp.files import read_cached, user_cache, write_cached
from offramp.hashing import digest, plain
from offramp.labels import several

MEMORY_SHARE = 4  # images stay in memory while they take less than one in so many free bytes
SCAN_VERSION = 2  # of what a scan finds; 2: damaged PNGs are told by their checksum
LEAST, MOST = 16, 1024  # images that a scan has in memory at once: as many as fit into ROOM
ROOM = 2**28  # bytes

OnError = Literal["fail", "skip"]


@dataclass(frozen=True, eq=False)
class LoadedSplit:
    """A split that was read."""

    split: Split | FileSplit  # its images and labels
    part: Subset  # which images of the source these are: without those that were skipped
    # [n] SHA-256, in hex, of what each image was read from (a file, or pixels before any geometry)
    digests: list[str]
    skipped: list[str]  # names of the images that were damaged
    mean: tuple[float, ...]  # per channel, of pixels scaled to [0, 1]
    std: tuple[float, ...]  # per channel, as `mean`


def streams(part: Subset, geometry: Geometry, loader: Loader, whole: bool) -> bool:
    """Whether a part's images are read anew whenever they are needed, and do not stay in memory. `auto`
    streams where they are too many for the free memory, and where `whole`: all of every image is needed,
    not only what the geometry leaves of it."""
    source = part.source.images
    if not isinstance(source, StoredImages) or loader == "resident":
        return False
    if loader == "streaming" or whole:
        return True
    if not isinstance(source, (Files, DatasetImages)) and geometry == Geometry():
        return False  # what is compressed in memory is small
    side = geometry.size
    size = len(part.rows) * (3 * side * side if side else _first_size(part, source, geometry))
    return size > int(psutil.virtual_memory().available) // MEMORY_SHARE


def _first_size(part: Subset, source: StoredImages, geometry: Geometry) -> int:
    """Bytes of the first image that can be read; 0 where none can, which `read_pixels` will say."""
    for row in part.rows.tolist():
        with suppress(OfframpError):
            return geometry.of(source.open(row)).nbytes
    return 0


def read_pixels(part: Subset, geometry: Geometry, on_error: OnError = "fail") -> LoadedSplit:
    """Decode, scale and crop the images of a part, in parallel where they are opened one by one. Raises
    OfframpError naming an image that is damaged, unless `on_error` is `skip`, and one whose size differs
    where no size is asked for."""
    source = part.source.images
    if not isinstance(source, StoredImages):
        pixels = part.source.read(part.rows)
        split = Split(geometry.of_batch(pixels), part.labels)
        return LoadedSplit(split, part, list(map(pixel_digest, pixels)), [], *statistics(split.images))
    image = partial(_image, source, geometry, on_error)
    images, rows = stacked(image, part.rows.tolist(), source.name)
    good = torch.isin(part.rows, torch.tensor(rows))
    left = part.only(good)
    return LoadedSplit(
        Split(images, left.labels),
        left,
        source.digests(left.rows),
        [source.name(row) for row in part.rows[~good].tolist()],
        *statistics(images),
    )


def read_later(
    part: Subset, geometry: Geometry, on_error: OnError, whole: bool, in_memory: bool
) -> LoadedSplit:
    """A part whose images are made when they are asked for, after one pass over all of them. whole:
    whether training images are cut from all of the image; in_memory: whether the decoded images stay in
    memory.

    Raises:
        OfframpError: as `read_pixels` does.
    """
    source = part.source.images
    assert isinstance(source, StoredImages)
    scanned, hashes = scan(part, source, geometry, on_error)
    good = torch.ones(len(part.rows), dtype=torch.bool)
    good[list(scanned.damaged)] = False
    left = part.only(good)
    digests = [sha for sha, readable in zip(hashes, good.tolist(), strict=True) if readable]
    memory = None
    if in_memory:
        rows = LoggedProgress("decoding images", len(left.rows)).over(left.rows.tolist())
        stored = map(source.open, rows)
        memory = tuple(geometry.whole(image) for image in stored if isinstance(image, Image.Image))
        _check_unchanged(left, source, digests)
    split = FileSplit(
        source,
        rows=left.rows,
        geometry=geometry,
        labels=left.labels,
        shape=scanned.shape,
        digest=scanned.digest,
        content=digest([digests, plain(geometry)]) if whole else None,
        memory=memory,
        files=tuple(digests),
        dtype=torch.uint8 if scanned.counts else torch.float32,
    )
    skipped = [source.name(row) for row in part.rows[~good].tolist()]
    channels = scanned.shape[0]
    mean, std = moments(scanned.counts) if scanned.counts else ((0.0,) * channels, (1.0,) * channels)
    return LoadedSplit(split, left, digests, skipped, mean, std)


def digests_of(part: Subset) -> list[str]:
    """SHA-256, in hex, of what each image of a part is read from."""
    shas = part.source.digests(part.rows)
    return list(map(pixel_digest, part.source.read(part.rows))) if shas is None else shas


def _image(source: StoredImages, geometry: Geometry, on_error: OnError, row: int) -> Tensor | None:
    """An image [C, H, W]. Of a damaged one: None with `skip`, else raises OfframpError."""
    try:
        return geometry.of(source.open(row))
    except OfframpError:
        if on_error == "skip":
            return None
        raise


@dataclass(frozen=True)
class Scan:
    """What one pass over image files finds, whose pixels do not stay."""

    shape: tuple[int, int, int]  # (C, H, W) of every image
    digest: str  # of a `Split` of the pixels
    # of `offramp.data.dataset.value_counts`; empty where pixels are float32
    counts: tuple[tuple[int, ...], ...]
    damaged: tuple[int, ...]  # positions of the images that could not be read


def scan(
    part: Subset, source: StoredImages, geometry: Geometry, on_error: OnError
) -> tuple[Scan, list[str]]:
    """Every image of a part, in order, a block at a time; and the hash of each one's file.

    The scan is kept in the user's cache folder, under a hash of the files' own hashes and of all that
    makes pixels of them, so that it is done once. `skip` leaves out damaged images, of which `digest`
    and `counts` then know nothing.

    Raises:
        OfframpError: naming an image that is damaged (unless skipped), differs in size, or has changed
            meanwhile.
    """
    hashes = source.digests(part.rows)
    key = [SCAN_VERSION, PIL.__version__, hashes, part.labels.tolist(), plain(geometry)]
    if isinstance(source, DatasetImages):  # whose hashes are of pixels alone
        key.append([str(source.types[row]) for row in part.rows.tolist()])
    path = user_cache() / "scans" / f"{digest(key)}.json"
    if (document := read_cached(path)) is not None:
        facts = document["scan"]
        shape, counts, damaged = facts["shape"], map(tuple, facts["counts"]), facts["damaged"]
        if not damaged or on_error == "skip":
            return Scan(tuple(shape), facts["digest"], tuple(counts), tuple(damaged)), hashes
    scanned = _scan(part, source, geometry, on_error)
    _check_unchanged(part, source, hashes)
    write_cached(path, {"scan": plain(scanned)})
    return scanned, hashes


def _check_unchanged(part: Subset, source: StoredImages, hashes: Sequence[str]) -> None:
    """Raises OfframpError, naming it, for an image of a part whose file is no longer what it was.
    hashes: [n] what `StoredImages.digests` gave before."""
    now = source.digests(part.rows)
    for row, was, sha in zip(part.rows.tolist(), hashes, now, strict=True):
        if was != sha:
            name = source.name(row)
            raise OfframpError(f"{name} changed while it was read; run the same command again")


def _scan(part: Subset, source: StoredImages, geometry: Geometry, on_error: OnError) -> Scan:
    shape: torch.Size | None = None
    dtype = torch.uint8
    first = source.name(int(part.rows[0]))
    sha, counts, damaged = hashlib.sha256(), torch.zeros(0), []
    progress = LoggedProgress("looking through images, once", len(part.rows))
    waiting, many = part.rows, LEAST
    read = partial(_image, source, geometry, on_error)
    with pool(len(part.rows)) as threads:
        while len(waiting):
            rows, waiting = waiting[:many], waiting[many:]
            images = list(progress.over(threads.map(read, rows.tolist())))
            for row, image in zip(rows.tolist(), images, strict=True):
                if image is None:
                    damaged.append(row)
                    continue
                if shape is None:
                    shape, first = image.shape, source.name(row)
                    sha.update(f"{(len(part.rows), *shape)} {image.dtype}".encode())
                    dtype = image.dtype
                    counts = torch.zeros(len(image), 256, dtype=torch.int64)
                    many = max(LEAST, min(MOST, ROOM // max(1, image.nbytes)))
                if image.shape != shape or image.dtype != dtype:
                    raise OfframpError(
                        f"{source.name(row)} is {list(image.shape)} where {first} is {list(shape)}; "
                        "set data.size, which makes one size"
                    )
                sha.update(image.contiguous().numpy().data)
                if dtype == torch.uint8:
                    counts += value_counts(image[None])
                elif not bool(image.isfinite().all()):
                    raise OfframpError(f"{source.name(row)} holds NaN or infinity; clean the data")
    if shape is None:
        raise OfframpError(f"none of {len(part.rows)} images can be read, the first is {first}")
    if damaged:  # the hash begins with the number of images: once more, over those that can be read
        good = ~torch.isin(part.rows, torch.tensor(damaged))
        clean = _scan(part.only(good), source, geometry, "fail")
        return Scan(clean.shape, clean.digest, clean.counts, tuple((~good).nonzero().flatten().tolist()))
    if several(part.labels):
        sha.update(str(tuple(part.labels.shape)).encode())
    sha.update(part.labels.contiguous().numpy().data)
    channels, height, width = shape
    values = tuple(map(tuple, counts.tolist())) if dtype == torch.uint8 else ()
    return Scan((channels, height, width), sha.hexdigest(), values, ())
