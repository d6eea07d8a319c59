"""One pass over image files whose pixels are not kept: their hash, their statistics, the damaged ones.

What was found is kept in the user's cache folder, under a hash of the files' own hashes and of all that
makes pixels of them, so that it is done once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import PIL
import torch
from torch import Tensor

from offramp.data import manifest
from offramp.data.choose import Part
from offramp.data.dataset import value_counts
from offramp.data.geometry import Geometry
from offramp.data.images import Opened
from offramp.data.pace import Pace
from offramp.errors import OfframpError
from offramp.files import replacing
from offramp.hashing import digest, plain

VERSION = 1
BLOCK = 1024  # images that are in memory at once


@dataclass(frozen=True)
class Scan:
    """shape: (C, H, W) of every image.  digest: of a `Split` of the pixels.  counts: of
    `offramp.data.dataset.value_counts`.  damaged: positions of the images that could not be read."""

    shape: tuple[int, int, int]
    digest: str
    counts: tuple[tuple[int, ...], ...]
    damaged: tuple[int, ...]


def scan(part: Part, source: Opened, geometry: Geometry, skip: bool) -> Scan:
    """Every image of a part, in order, a block at a time.

    skip: leave out damaged images, of which `digest` and `counts` then know nothing.

    Raises OfframpError naming an image that is damaged (unless `skip`) or differs in size.
    """
    made_of = [VERSION, PIL.__version__, source.digests(part.rows), part.labels.tolist()]
    path = manifest.cache_folder() / "scans" / f"{digest([*made_of, plain(geometry)])}.json"
    found = _kept(path)
    if found is None or (found.damaged and not skip):
        found = _scan(part, source, geometry, skip)
        with contextlib.suppress(OSError), replacing(path) as temporary:
            temporary.write_text(json.dumps(plain(found)))
    return found


def _scan(part: Part, source: Opened, geometry: Geometry, skip: bool) -> Scan:
    def make(row: int) -> Tensor | None:
        try:
            return geometry.of(source.open(row))
        except OfframpError:
            if skip:
                return None
            raise

    shape: torch.Size | None = None
    first = source.name(int(part.rows[0]))
    sha, counts, damaged = hashlib.sha256(), torch.zeros(0), []
    pace = Pace("looking through images, once", len(part.rows))
    with ThreadPoolExecutor(min(len(part.rows), os.cpu_count() or 1, 16)) as pool:
        for rows in torch.split(part.rows, BLOCK):
            made = list(pace.over(pool.map(make, rows.tolist())))
            damaged += [row for row, image in zip(rows.tolist(), made, strict=True) if image is None]
            for row, image in zip(rows.tolist(), made, strict=True):
                if image is None:
                    continue
                if shape is None:
                    shape, first = image.shape, source.name(row)
                    sha.update(f"{(len(part.rows), *shape)} {image.dtype}".encode())
                    counts = torch.zeros(len(image), 256, dtype=torch.int64)
                if image.shape != shape:
                    raise OfframpError(
                        f"{source.name(row)} is {list(image.shape)} where {first} is {list(shape)}; "
                        "set data.size, which makes one size"
                    )
                sha.update(image.contiguous().numpy().data)
                counts += value_counts(image[None])
    if shape is None:
        raise OfframpError(f"none of {len(part.rows)} images can be read, the first is {first}")
    if damaged:  # the hash begins with the number of images: once more, over those that can be read
        good = ~torch.isin(part.rows, torch.tensor(damaged))
        clean = _scan(part.only(good), source, geometry, skip=False)
        return Scan(clean.shape, clean.digest, clean.counts, tuple((~good).nonzero().flatten().tolist()))
    sha.update(part.labels.numpy().data)
    channels, height, width = shape
    return Scan((channels, height, width), sha.hexdigest(), tuple(map(tuple, counts.tolist())), ())


def _kept(path: Any) -> Scan | None:
    """What an earlier pass has found; None where there is nothing that can be read."""
    try:
        kept = json.loads(path.read_bytes())
        channels, height, width = kept["shape"]
        counts = tuple(tuple(map(int, one)) for one in kept["counts"])
        damaged = tuple(map(int, kept["damaged"]))
        return Scan((channels, height, width), str(kept["digest"]), counts, damaged)
    except (OSError, ValueError, KeyError, TypeError):
        return None
