"""A split whose images are made from files whenever they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from offramp.augment import Augment
from offramp.data.images import manifest
from offramp.data.images.files import Files, Opened
from offramp.data.images.geometry import Geometry
from offramp.data.loading.views import cut_out


@dataclass(frozen=True, eq=False)
class FileSplit:
    """What `offramp.data.dataset.Split` is for pixels in memory.

    source, rows: which images, [N] int64 on the CPU.  geometry: what is made of them.
    labels: [N] int64.  shape: (C, H, W) of every image; all are uint8.
    digest: that of the split of these pixels in memory: how images are read changes no key.
    content: hash of the files themselves, where training images are cut from more than the pixels of
        `digest` show; else None.
    held: the images, decoded, where they are kept in memory.
    files: [N] SHA-256, in hex, of the file of each image.
    """

    source: Opened
    rows: Tensor
    geometry: Geometry
    labels: Tensor
    shape: tuple[int, int, int]
    digest: str
    content: str | None = None
    held: tuple[Image.Image, ...] | None = None
    files: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8

    def picture(self, index: int, augment: Augment | None, drawn: Sequence[float] | None) -> Image.Image:
        """Image `index`, from 0 to N - 1: as it is where nothing was drawn, else the box that was.

        Raises OfframpError naming a file that is damaged.
        """
        opened = self.source.open(int(self.rows[index])) if self.held is None else self.held[index]
        if augment is None or drawn is None:
            return self.geometry.sized(self.geometry.toned(opened))
        return cut_out(augment, self.geometry.whole(opened), drawn, (self.shape[1], self.shape[2]))

    def changed(self, key: str) -> str | None:
        """An image file that is no longer what the digests were made of; None where none is found.
        key: chooses the files that are read for that (see `offramp.data.images.manifest.changed`).

        Raises OfframpError naming a file that cannot be read.
        """
        if self.held is not None or not isinstance(self.source, Files):
            return None
        ids = (self.source.ids[row] for row in self.rows.tolist())
        name = manifest.changed(self.source.root, dict(zip(ids, self.files, strict=True)), key)
        return None if name is None else str(self.source.root / name)

    def to(self, device: torch.device | str) -> FileSplit:
        """The same split with its labels on `device`."""
        return replace(self, labels=self.labels.to(device))
