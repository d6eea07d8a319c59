"""One pass over image files whose pixels are not kept: their hash, their statistics, the damaged ones.

What was found is kept in the user's cache folder, under a hash of the files' own hashes and of all that
makes pixels of them, so that it is done once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import PIL
import torch
from torch import Tensor

from offramp.data.dataset import value_counts
from offramp.data.images import cache
from offramp.data.images.files import Opened
from offramp.data.images.geometry import Geometry
from offramp.data.images.own import DatasetImages
from offramp.data.progress import Pace, pool
from offramp.data.splits import Subset
from offramp.errors import OfframpError
from offramp.hashing import digest, plain

VERSION = 1
LEAST, MOST = 16, 1024  # images that are in memory at once: as many as fit into ROOM
ROOM = 2**28  # bytes


@dataclass(frozen=True)
class Scan:
    """shape: (C, H, W) of every image.  digest: of a `Split` of the pixels.  counts: of
    `offramp.data.dataset.value_counts`; empty where pixels are float32.  damaged: positions of the
    images that could not be read."""

    shape: tuple[int, int, int]
    digest: str
    counts: tuple[tuple[int, ...], ...]
    damaged: tuple[int, ...]


def scan(part: Subset, source: Opened, geometry: Geometry, skip: bool) -> tuple[Scan, list[str]]:
    """Every image of a part, in order, a block at a time; and the hash of each one's file.

    skip: leave out damaged images, of which `digest` and `counts` then know nothing.

    Raises OfframpError naming an image that is damaged (unless `skip`), differs in size, or has changed
    meanwhile.
    """
    hashes = source.digests(part.rows)
    known = [VERSION, PIL.__version__, hashes, part.labels.tolist(), plain(geometry)]
    if isinstance(source, DatasetImages):  # whose hashes are of pixels alone
        known.append([str(source.forms[row]) for row in part.rows.tolist()])
    path = cache.folder() / "scans" / f"{digest(known)}.json"
    found, kept = None, cache.read(path)
    if kept is not None:
        said = kept["scan"]
        counts, damaged = tuple(map(tuple, said["counts"])), tuple(said["damaged"])
        found = Scan(tuple(said["shape"]), said["digest"], counts, damaged)
    if found is None or (found.damaged and not skip):
        found = _scan(part, source, geometry, skip)
        check_unchanged(part, source, hashes)
        cache.write(path, {"scan": plain(found)})
    return found, hashes


def check_unchanged(part: Subset, source: Opened, hashes: Sequence[str]) -> None:
    """Raises OfframpError, naming it, for an image of a part whose file is no longer what it was.
    hashes: [n] what `Opened.digests` gave before."""
    now = source.digests(part.rows)
    for row, was, sha in zip(part.rows.tolist(), hashes, now, strict=True):
        if was != sha:
            name = source.name(row)
            raise OfframpError(f"{name} changed while it was read; run the same command again")


def made_of(source: Opened, geometry: Geometry, skip: bool, row: int) -> Tensor | None:
    """An image [C, H, W]. Of a damaged one: None with `skip`, else raises OfframpError."""
    try:
        return geometry.of(source.open(row))
    except OfframpError:
        if skip:
            return None
        raise


def _scan(part: Subset, source: Opened, geometry: Geometry, skip: bool) -> Scan:
    shape: torch.Size | None = None
    dtype = torch.uint8
    first = source.name(int(part.rows[0]))
    sha, counts, damaged = hashlib.sha256(), torch.zeros(0), []
    pace = Pace("looking through images, once", len(part.rows))
    waiting, many = part.rows, LEAST
    with pool(len(part.rows)) as threads:
        while len(waiting):
            rows, waiting = waiting[:many], waiting[many:]
            make = partial(made_of, source, geometry, skip)
            images = list(pace.over(threads.map(make, rows.tolist())))
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
        clean = _scan(part.only(good), source, geometry, skip=False)
        return Scan(clean.shape, clean.digest, clean.counts, tuple((~good).nonzero().flatten().tolist()))
    sha.update(part.labels.numpy().data)
    channels, height, width = shape
    values = tuple(map(tuple, counts.tolist())) if dtype == torch.uint8 else ()
    return Scan((channels, height, width), sha.hexdigest(), values, ())
