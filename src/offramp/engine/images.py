"""Images as networks take them, read from memory or from files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from time import perf_counter
from typing import assert_never

import torch
from torch import Tensor

from offramp.augment import Augment, View
from offramp.data import Data, normalize
from offramp.data.batches import Prefetch
from offramp.data.dataset import FileSplit, Split
from offramp.data.images.files import pixels
from offramp.data.images.geometry import picture
from offramp.data.views import augmented, cut_draws, cut_out, draws
from offramp.device import moved, widest
from offramp.engine.losses import balanced
from offramp.engine.ranks import ALONE, Ranks
from offramp.engine.settings import laid_out
from offramp.labels import several
from offramp.numerics import MemoryFormat
from offramp.recipe import Recipe


class Images:
    """Normalized images of a split, by row numbers.

    Splits in memory lie on the device, and are gathered and normalized there.

    Args:
        workers: Processes that read files ahead of time (0: this one, when they are needed).
        ranks: Those among which the rows are divided.
        clock: Of the seconds that training records.
    """

    def __init__(
        self,
        data: Data,
        device: torch.device,
        workers: int = 0,
        memory_format: MemoryFormat = "channels_last",
        ranks: Ranks = ALONE,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.device = device
        self.clock = clock
        self.ranks = ranks
        self._memory_format = memory_format
        self.augment = data.augment
        boxes = data.augment is not None and data.augment.resized_crop is not None
        self._stored = data.train if boxes and isinstance(data.train, Split) else None
        self._data = data.to(device)
        self._labels = data.train.labels  # where counting them waits for no device
        self._mean = torch.tensor(self._data.mean, device=device)
        self._std = torch.tensor(self._data.std, device=device)
        files = {name: s for name, s in data.splits.items() if isinstance(s, FileSplit)}
        self._prefetch = Prefetch(files, data.augment, workers)
        self._spent = 0.0

    def count(self, split: str) -> int:
        return len(getattr(self._data, split).labels)

    def labels(self, split: str, rows: Tensor) -> Tensor:
        """[B] int64, or [B, C] float32 of several labels an image."""
        labels: Tensor = getattr(self._data, split).labels[rows]
        return labels.float() if several(labels) else labels

    def class_weights(self, recipe: Recipe) -> Tensor | None:
        """[C] float32 of the training labels, where the recipe has some."""
        match recipe.class_weights:
            case "none":
                return None
            case "balanced":
                return self._balanced
            case _:
                assert_never(recipe.class_weights)

    @cached_property
    def _balanced(self) -> Tensor:
        return balanced(self._labels, len(self._data.classes)).to(self.device)

    def read(self, split: str, rows: Tensor, view: View | None = None) -> Tensor:
        """[B, C, H, W] float32, in the memory format; in the random `view`, or as they are."""
        part = self._data.splits[split]
        if isinstance(part, FileSplit):
            return self._finished(self._prefetch.now(split, rows.cpu(), view), rows, view)
        if view is not None and self._stored is not None and self.augment is not None:
            return self._finished(self._boxes(self.augment, self._stored, rows, view), rows, view)
        return self._finished(part.images.index_select(0, rows), rows, view)

    def reads(self, split: str, chunks: Sequence[Tensor], view: View | None = None) -> Iterator[Tensor]:
        """`read` of each of `chunks`, in order; what lies in files is made ahead of time."""
        began = self.clock()
        for images in self._reads(split, chunks, view):
            self._spent += self.clock() - began
            yield images
            began = self.clock()
        self._spent += self.clock() - began

    def take_seconds(self) -> float:
        """Seconds for which callers of `reads` have waited since the last call: for files, and for
        gathering, augmenting and normalizing. Of a GPU, whose work goes on by itself, only what it
        takes to hand that work over: a step does not wait for it here."""
        seconds, self._spent = self._spent, 0.0
        return seconds

    def _reads(self, split: str, chunks: Sequence[Tensor], view: View | None) -> Iterator[Tensor]:
        if not isinstance(self._data.splits[split], FileSplit):
            for rows in chunks:
                yield self.read(split, rows, view)
            return
        batches = self._prefetch.batches(split, chunks, view)
        for rows, stored in zip(chunks, batches, strict=True):
            # The prefetch uses its buffers again; normalizing copies all but floats.
            own = stored.clone() if stored.is_floating_point() else stored
            yield self._finished(own, rows, view)

    def close(self) -> None:
        """End the processes that read files."""
        self._prefetch.close()

    def _finished(self, stored: Tensor, rows: Tensor, view: View | None) -> Tensor:
        images = moved(stored, self.device)
        if view is not None and self.augment is not None:
            kind = widest(self.device)
            drawn = draws(view, rows if kind == torch.float64 else rows.cpu())  # which draws in it
            images = augmented(self.augment, images, drawn.to(self.device, kind))
        return laid_out(normalize(images, self._mean, self._std), self._memory_format)

    def _boxes(self, augment: Augment, stored: Split, rows: Tensor, view: View) -> Tensor:
        """The resized crops of images in memory; Pillow makes them, on the CPU, as those of files."""
        rows = rows.cpu()
        drawn = cut_draws(view, rows)
        size = (stored.shape[1], stored.shape[2])
        cut = [
            pixels(cut_out(augment, picture(image), d, size))
            for image, d in zip(stored.images[rows].cpu(), drawn, strict=True)
        ]
        return torch.stack(cut)
