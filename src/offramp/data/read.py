"""The chosen images of a split as pixels in memory, and the hashes of what they were read from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from offramp.data.choose import Part
from offramp.data.dataset import Split
from offramp.data.decode import in_threads
from offramp.data.geometry import Geometry
from offramp.data.images import Files, Opened
from offramp.errors import OfframpError, nearest


@dataclass(frozen=True, eq=False)
class Taken:
    """A split that was read.

    part: what it holds: without the images that were skipped.
    digests: [n] SHA-256, in hex, of what each image was read from (a file, or pixels before any
        geometry).  skipped: names of the images that were damaged.
    """

    split: Split
    part: Part
    digests: list[str]
    skipped: list[str]


def take(part: Part, geometry: Geometry, on_error: Literal["fail", "skip"] = "fail") -> Taken:
    """Decode, scale and crop the images of a part, in parallel where they are files.

    Raises OfframpError naming an image that is damaged, unless `on_error` is `skip`, and one whose
    size differs where no size is asked for.
    """
    if on_error not in ("fail", "skip"):
        raise OfframpError(f"data.on_error cannot be '{on_error}'{nearest(on_error, ('fail', 'skip'))}")
    source = part.source.images
    one_by_one = isinstance(source, Files) or geometry != Geometry() or on_error == "skip"
    if isinstance(source, Opened) and one_by_one:
        return _opened(part, source, geometry, on_error)
    pixels = part.source.read(part.rows)
    digests = source.digests(part.rows) if isinstance(source, Opened) else [_digest(p) for p in pixels]
    return Taken(Split(geometry.of_batch(pixels), part.labels), part, digests, [])


def digests_of(part: Part) -> list[str]:
    """SHA-256, in hex, of what each image of a part is read from."""
    source = part.source.images
    if isinstance(source, Opened):
        return source.digests(part.rows)
    return [_digest(pixels) for pixels in part.source.read(part.rows)]


def _opened(part: Part, source: Opened, geometry: Geometry, on_error: str) -> Taken:
    def make(row: int) -> Tensor | None:
        try:
            image = source.open(row)
        except OfframpError:
            if on_error == "skip":
                return None
            raise
        return geometry.of(image)

    images, rows = in_threads(make, part.rows.tolist(), source.name)
    kept = torch.isin(part.rows, torch.tensor(rows))
    skipped = [source.name(row) for row in part.rows[~kept].tolist()]
    left = part.only(kept)
    return Taken(Split(images, left.labels), left, source.digests(left.rows), skipped)


def _digest(image: Tensor) -> str:
    return hashlib.sha256(image.contiguous().numpy().data).hexdigest()
