"""Images from files, made ahead of time by worker processes, in the order in which they are needed."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from offramp.augment import Augment, View
from offramp.data.file_split import FileSplit
from offramp.data.views import box_draws
from offramp.errors import OfframpError

Asked = tuple[str, int, tuple[float, ...] | None]  # split, image, the numbers that draw its box

PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>
AHEAD = 2  # batches that each worker makes before they are asked for


class Prefetch:
    """Batches of pixels of the splits in files, by so many worker processes (0: in this one).

    The processes are started when they are first needed, and end with this object or `close`. What a
    worker does is a function of what it is asked, so their number changes no bit.
    """

    def __init__(self, splits: Mapping[str, FileSplit], augment: Augment | None, workers: int) -> None:
        self._boxes = augment is not None and augment.resized_crop is not None
        self._pictures = _Pictures(splits, augment)
        self._workers = workers
        self._asked = _Asked()
        self._loader: DataLoader[Any] | None = None

    def batches(self, split: str, chunks: Iterable[Tensor], view: View | None) -> Iterator[Tensor]:
        """The images of each of `chunks`, which are rows [n] int64 on the CPU: [n, C, H, W] uint8,
        channels-last.

        Of an augmentation only the resized crop is done here. One pass at a time: a second one ends the
        first.

        Raises OfframpError naming a file that is damaged.
        """
        self._asked.batches = (self._asking(split, rows, view) for rows in chunks)
        for made in self._running():
            yield _unpacked(made)

    def now(self, split: str, rows: Tensor, view: View | None) -> Tensor:
        """One batch, made in this process."""
        return _unpacked(self._pictures.__getitems__(self._asking(split, rows, view)))

    def close(self) -> None:
        """End the worker processes."""
        self._loader = None

    def _asking(self, split: str, rows: Tensor, view: View | None) -> list[Asked]:
        if view is None or not self._boxes:
            return [(split, row, None) for row in rows.tolist()]
        drawn = box_draws(view, rows)
        return [(split, row, tuple(d)) for row, d in zip(rows.tolist(), drawn, strict=True)]

    def _running(self) -> DataLoader[Any]:
        if self._loader is None:
            self._loader = DataLoader(
                self._pictures,
                batch_sampler=self._asked,
                num_workers=self._workers,
                collate_fn=_as_it_is,
                worker_init_fn=_end_with_parent,
                persistent_workers=self._workers > 0,
                prefetch_factor=AHEAD if self._workers else None,
                generator=torch.Generator(),  # it draws from the global one otherwise
            )
        return self._loader


class _Asked:
    """What is to be made next; the loader goes through it once a pass."""

    def __init__(self) -> None:
        self.batches: Iterable[list[Asked]] = ()

    def __iter__(self) -> Iterator[list[Asked]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return 0  # not known ahead; the protocol wants a number


class _Pictures(Dataset[Any]):
    """The images of all splits, a batch at a time.

    Batches travel as arrays through a pipe: shared memory, which tensors would take, is small in many
    containers. A mistake travels as its message, so that it is told in one line.
    """

    def __init__(self, splits: Mapping[str, FileSplit], augment: Augment | None) -> None:
        self._splits = splits
        self._augment = augment

    def __getitem__(self, asked: Asked) -> Any:
        return self.__getitems__([asked])

    def __getitems__(self, asked: Sequence[Asked]) -> np.ndarray | str:
        try:
            first = self._splits[asked[0][0]]
            channels, height, width = first.shape
            made = np.empty((len(asked), height, width, channels), dtype=np.uint8)
            for place, (split, row, drawn) in zip(made, asked, strict=True):
                picture = self._splits[split].picture(row, self._augment, drawn)
                place[:] = np.asarray(picture).reshape(place.shape)
        except OfframpError as error:
            return str(error)
        return made


def _end_with_parent(_: int) -> None:
    """A worker holds copies of the files its parent has open, locks of a store among them. Where the
    kernel can, it ends the worker together with its parent, however that ends, and frees the locks."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _as_it_is(made: Any) -> Any:
    return made


def _unpacked(made: np.ndarray | str) -> Tensor:
    if isinstance(made, str):
        raise OfframpError(made)
    return torch.from_numpy(made).permute(0, 3, 1, 2)
