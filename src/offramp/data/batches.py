"""Batches: the order of an epoch, where they begin and end, and images read ahead by processes."""

from __future__ import annotations

import itertools
import mmap
import signal
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from offramp.augment import Augment, View
from offramp.data.dataset import NOTHING_DRAWN, FileSplit, ImageDraw
from offramp.data.images.dataset_images import DatasetImages
from offramp.data.views import cut_draws
from offramp.errors import OfframpError
from offramp.hashing import derive
from offramp.process import end_with_parent, ended_by, leave_signals_to_parent

REPLACED = 3  # killed workers that others are started for
AHEAD = 2  # batches that each worker makes before they are asked for
# Forked processes share memory that has no name: nothing is left behind, however they end.
START = "fork" if sys.platform == "linux" else None


def order(seed: int, epoch: int, n: int) -> Tensor:
    """A permutation of 0..n-1 as [n] int64 on the CPU: a function of the arguments alone."""
    generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
    return torch.randperm(n, generator=generator)


def bounds(n: int, batch_size: int) -> tuple[tuple[int, int], ...]:
    """Where the batches of `n` samples begin and end: `(start, stop)` of each, in order.

    The last batch stays, however short; one of a single sample joins the batch before it, since
    BatchNorm on vectors cannot train on one. (With a batch size of 1 every batch is single.)

    Raises:
        OfframpError: when there are no samples or the batch size is below 1.
    """
    if n < 1:
        raise OfframpError("there are no samples to make batches of; give at least one")
    if batch_size < 1:
        raise OfframpError(f"batch size {batch_size} is too small; use 1 or more")
    edges = [*range(0, n, batch_size), n]
    if batch_size > 1 and n > batch_size and n % batch_size == 1:
        del edges[-2]
    return tuple(itertools.pairwise(edges))


@dataclass(frozen=True, eq=False)
class SharedSlots:
    """Memory that a process and those it forks share.

    It has neither a name nor a place in /dev/shm, is taken page by page as it is written, and is freed
    by the kernel with the last process that has it.
    """

    count: int  # of pieces
    size: int  # bytes of each
    memory: mmap.mmap  # all of them

    @staticmethod
    def allocate(count: int, size: int) -> SharedSlots | None:
        """None where the system gives no such memory."""
        try:
            return SharedSlots(count, size, mmap.mmap(-1, count * size))
        except (OSError, ValueError, OverflowError):
            return None

    def array(self, slot: int, shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
        """The first bytes of a slot as numbers of `shape`; not a copy. Raises ValueError when they are
        more than its size."""
        count = int(np.prod(shape))
        if count * np.dtype(dtype).itemsize > self.size or not 0 <= slot < self.count:
            raise ValueError(f"{shape} in slot {slot}; there are {self.count} of {self.size} bytes")
        return np.frombuffer(self.memory, dtype, count, slot * self.size).reshape(shape)


class Prefetch:
    """Batches of pixels of the splits in files, by so many worker processes (0: in this one).

    The processes are started when they are first needed, and end with this object or `close`. What a
    worker does is a function of what it is asked, so their number changes no bit.

    Args:
        splits: By name.
        augment: How training images are augmented.
        workers: How many processes.
    """

    def __init__(self, splits: Mapping[str, FileSplit], augment: Augment | None, workers: int) -> None:
        self._splits = splits
        self._augment = augment
        # What a user defined may be sent to no other process: it must be there when that is forked.
        users = any(isinstance(split.source, DatasetImages) for split in splits.values())
        self._workers = 0 if users and START is None else workers
        self._slots: SharedSlots | None = None
        self._requests = _Requests()
        self._loader: DataLoader[Any] | None = None
        self._killed = 0

    def batches(self, split: str, chunks: Sequence[Tensor], view: View | None) -> Iterator[Tensor]:
        """The images of each chunk, in order.

        Of an augmentation only what is cut from files, and a user's own, is done here. One pass at a
        time: a second one ends the first. A worker that is killed is replaced, up to REPLACED times, and
        what it was at is made again. chunks: rows [n] int64 of each batch; view: None takes images as
        they are.

        Yields:
            [n, C, H, W] of the split's type, on the CPU, channels-last. Each holds only until the next
            is asked for: its memory is used again.

        Raises:
            OfframpError: naming a file that is damaged, and where more workers are killed.
        """
        waiting = list(chunks)
        while True:
            try:
                for images in self._pass(split, tuple(waiting), view):
                    del waiting[0]
                    yield images
                return
            except RuntimeError as error:
                workers = _workers(self._loader)
                if all(worker.is_alive() for worker in workers):
                    raise
                self._killed += 1
                code = next(worker.exitcode for worker in workers if not worker.is_alive())
                _kill(workers)  # the others may wait for a lock of the dead one for ever
                self.close()
                if self._killed > REPLACED:
                    fewer = ", with fewer loader_workers if memory is short"
                    raise OfframpError(
                        f"a process that reads images died ({ended_by(code)}), and {REPLACED} had been "
                        f"replaced; run the same again{fewer if code == -signal.SIGKILL else ''}"
                    ) from error

    def _pass(self, split: str, chunks: Sequence[Tensor], view: View | None) -> Iterator[Tensor]:
        """`batches`, until a worker dies. Raises RuntimeError then, as torch does."""
        channels, height, width = self._splits[split].shape
        image_bytes = channels * height * width * self._splits[split].dtype.itemsize
        loader = self._running(max(map(len, chunks), default=1) * image_bytes)
        slots = self._slots
        free = [] if slots is None else list(range(slots.count))
        self._requests.batches = (
            _Request(free.pop() if free else None, self._draws(split, rows, view)) for rows in chunks
        )
        for batch in _started(loader):
            if slots is not None and isinstance(batch, _FilledSlot):
                yield _as_images(slots.array(batch.slot, batch.shape, batch.dtype))
                free.append(batch.slot)
            else:
                yield _unpacked(batch)

    def now(self, split: str, rows: Tensor, view: View | None) -> Tensor:
        """One batch [n, C, H, W] of the split's type, made in this process."""
        pictures = _Pictures(self._splits, self._augment, None)
        return _unpacked(pictures.__getitems__(_Request(None, self._draws(split, rows, view))))

    def close(self) -> None:
        """End the worker processes."""
        self._loader = self._slots = None

    def _draws(self, split: str, rows: Tensor, view: View | None) -> list[DrawnImage]:
        augment = self._augment
        if view is None or augment is None:
            return [(split, row, NOTHING_DRAWN) for row in rows.tolist()]
        own = None if augment.own is None else view
        boxes = [None] * len(rows) if augment.resized_crop is None else cut_draws(view, rows.cpu())
        return [(split, row, ImageDraw(box, own)) for row, box in zip(rows.tolist(), boxes, strict=True)]

    def _running(self, most: int) -> DataLoader[Any]:
        """The processes. most: bytes of the largest batch; where it is larger than any before, they are
        started anew, since they only know the memory that was there when they began."""
        if self._loader is None or (self._slots is not None and self._slots.size < most):
            self.close()
            if START is not None and self._workers:
                self._slots = SharedSlots.allocate(AHEAD * self._workers + 1, most)
            self._loader = DataLoader(
                _Pictures(self._splits, self._augment, self._slots),
                batch_sampler=self._requests,  # type: ignore[arg-type]
                num_workers=self._workers,
                collate_fn=_unchanged,
                worker_init_fn=_tie_to_parent,
                multiprocessing_context=START if self._workers else None,
                persistent_workers=self._workers > 0,
                prefetch_factor=AHEAD if self._workers else None,
                generator=torch.Generator(),  # it draws from the global one otherwise
            )
        return self._loader


DrawnImage = tuple[str, int, ImageDraw]  # split, row, what is drawn for it


@dataclass(frozen=True)
class _Request:
    """A batch that is to be made, and the slot that it is to be put in; None: into the pipe."""

    slot: int | None
    images: Sequence[DrawnImage]


@dataclass(frozen=True)
class _FilledSlot:
    """A batch that lies in a slot. shape: (n, H, W, C)."""

    slot: int
    shape: tuple[int, ...]
    dtype: str


class _Requests:
    """What is to be made next; the loader goes through it once a pass."""

    def __init__(self) -> None:
        self.batches: Iterator[_Request] = iter(())

    def __iter__(self) -> Iterator[_Request]:
        return self.batches


class _Pictures(Dataset[Any]):
    """The images of all splits, a batch at a time.

    Batches lie in memory that is shared with the parent; where there is none, they travel as arrays
    through a pipe. (Shared memory with a name, which tensors would take, is small in many containers.)
    A mistake travels as its message, so that it is shown in one line.
    """

    def __init__(
        self, splits: Mapping[str, FileSplit], augment: Augment | None, slots: SharedSlots | None
    ) -> None:
        self._splits = splits
        self._augment = augment
        self._slots = slots

    def __getitem__(self, request: _Request) -> Any:
        return self.__getitems__(request)

    def __getitems__(self, request: _Request) -> np.ndarray | _FilledSlot | str:
        first = self._splits[request.images[0][0]]
        channels, height, width = first.shape
        shape = (len(request.images), height, width, channels)
        dtype = str(first.dtype).removeprefix("torch.")
        if request.slot is None or self._slots is None:
            batch = np.empty(shape, dtype)
        else:
            batch = self._slots.array(request.slot, shape, dtype)
        try:
            for place, (split, row, draw) in zip(batch, request.images, strict=True):
                place[:] = self._splits[split].image(row, self._augment, draw)
        except OfframpError as error:
            return str(error)
        return batch if request.slot is None else _FilledSlot(request.slot, shape, dtype)


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """A pass over what is asked. torch has the end of a worker raise an error wherever this process is
    at that time; here that is left to whoever waits for the worker."""
    main = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
    before = signal.getsignal(signal.SIGCHLD) if main else None
    first = not _workers(loader)
    batches = iter(loader)
    if first:
        # A traceback that somebody keeps may hold them longer than the loader lives.
        Finalize(None, _kill, (weakref.WeakSet(_workers(loader)),), exitpriority=100)
    if main:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)
    return batches


def _workers(loader: DataLoader[Any] | None) -> Sequence[BaseProcess]:
    """Those that were started."""
    workers: Sequence[BaseProcess] = getattr(getattr(loader, "_iterator", None), "_workers", ())
    return workers


def _kill(workers: Iterable[BaseProcess]) -> None:
    """End helpers, which ignore the signal that would ask them to. At the end of this process too, which
    would wait for them."""
    for worker in workers:
        worker.kill()


def _tie_to_parent(_: int) -> None:
    """A worker holds copies of the files its parent has open: it ends together with its parent, and not
    before it. (Where the kernel does not see to that, torch looks for the parent every five seconds.)"""
    end_with_parent(signal.SIGKILL)
    leave_signals_to_parent()


def _unchanged(batch: Any) -> Any:
    return batch


def _unpacked(batch: Any) -> Tensor:
    if isinstance(batch, str):
        raise OfframpError(batch)
    return _as_images(batch)


def _as_images(batch: np.ndarray) -> Tensor:
    """[n, H, W, C] as [n, C, H, W], in the same memory."""
    return torch.from_numpy(batch).permute(0, 3, 1, 2)
