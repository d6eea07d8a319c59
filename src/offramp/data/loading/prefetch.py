"""Images from files, made ahead of time by worker processes, in the order in which they are needed."""

from __future__ import annotations

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
from offramp.data.dataset import AS_IT_IS, FileSplit, Look
from offramp.data.images.own import DatasetImages
from offramp.data.loading.views import cut_draws
from offramp.errors import OfframpError
from offramp.process import end_with_parent, ended_by, leave_signals_to_parent

Asked = tuple[str, int, Look]  # split, image, how it is drawn

REPLACED = 3  # killed workers that others are started for
AHEAD = 2  # batches that each worker makes before they are asked for
# Forked processes share memory that has no name: nothing is left behind, however they end.
START = "fork" if sys.platform == "linux" else None


@dataclass(frozen=True, eq=False)
class Slots:
    """Memory that a process and those it forks share: `count` pieces of `size` bytes.

    It has neither a name nor a place in /dev/shm, is taken page by page as it is written, and is freed
    by the kernel with the last process that has it.
    """

    count: int
    size: int
    memory: mmap.mmap

    @staticmethod
    def made(count: int, size: int) -> Slots | None:
        """None where the system gives no such memory."""
        try:
            return Slots(count, size, mmap.mmap(-1, count * size))
        except (OSError, ValueError, OverflowError):
            return None

    def array(self, slot: int, shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
        """The first bytes of a slot as numbers of `shape`; not a copy.

        Raises ValueError when they are more than its size.
        """
        count = int(np.prod(shape))
        if count * np.dtype(dtype).itemsize > self.size or not 0 <= slot < self.count:
            raise ValueError(f"{shape} in slot {slot}; there are {self.count} of {self.size} bytes")
        whole = np.frombuffer(self.memory, dtype, count, slot * self.size)
        return whole.reshape(shape)


class Prefetch:
    """Batches of pixels of the splits in files, by so many worker processes (0: in this one).

    The processes are started when they are first needed, and end with this object or `close`. What a
    worker does is a function of what it is asked, so their number changes no bit.
    """

    def __init__(self, splits: Mapping[str, FileSplit], augment: Augment | None, workers: int) -> None:
        self._splits = splits
        self._augment = augment
        self._boxes = augment is not None and augment.resized_crop is not None
        self._own = augment is not None and augment.own is not None
        # What a user defined may be sent to no other process: it must be there when that is forked.
        users = any(isinstance(split.source, DatasetImages) for split in splits.values())
        self._workers = 0 if users and START is None else workers
        self._slots: Slots | None = None
        self._asked = _ToMake()
        self._loader: DataLoader[Any] | None = None
        self._killed = 0

    def batches(self, split: str, chunks: Sequence[Tensor], view: View | None) -> Iterator[Tensor]:
        """The images of each of `chunks`, which are rows [n] int64: [n, C, H, W] of the split's type, on
        the CPU, channels-last. Each holds only until the next is asked for: its memory is used again.

        Of an augmentation only what is cut from files, and a user's own, is done here. One pass at a
        time: a second one ends the first.

        A worker that is killed is replaced, up to REPLACED times, and what it was at is made again.

        Raises OfframpError naming a file that is damaged, and where more workers are killed.
        """
        waiting = list(chunks)
        while True:
            try:
                for made in self._made(split, tuple(waiting), view):
                    del waiting[0]
                    yield made
                return
            except RuntimeError as error:
                workers = _workers(self._loader)
                if all(worker.is_alive() for worker in workers):
                    raise
                self._killed += 1
                code = next(worker.exitcode for worker in workers if not worker.is_alive())
                _kill(workers)  # one that waits for what the other held would wait for ever
                self.close()
                if self._killed > REPLACED:
                    fewer = ", with fewer loader_workers if memory is short"
                    raise OfframpError(
                        f"a process that reads images died ({ended_by(code)}), and {REPLACED} had been "
                        f"replaced; run the same again{fewer if code == -signal.SIGKILL else ''}"
                    ) from error

    def _made(self, split: str, chunks: Sequence[Tensor], view: View | None) -> Iterator[Tensor]:
        """`batches`, until a worker dies. Raises RuntimeError then, as torch says it."""
        loader = self._running(max(map(len, chunks), default=1) * self._bytes(split))
        slots = self._slots
        free = [] if slots is None else list(range(slots.count))
        self._asked.batches = (
            _Order(free.pop() if free else None, self._asking(split, rows, view)) for rows in chunks
        )
        for made in _begun(loader):
            if slots is not None and isinstance(made, _Filled):
                yield _as_images(slots.array(made.slot, made.shape, made.dtype))
                free.append(made.slot)
            else:
                yield _unpacked(made)

    def now(self, split: str, rows: Tensor, view: View | None) -> Tensor:
        """One batch [n, C, H, W] of the split's type, made in this process."""
        pictures = _Pictures(self._splits, self._augment, None)
        return _unpacked(pictures.__getitems__(_Order(None, self._asking(split, rows, view))))

    def close(self) -> None:
        """End the worker processes."""
        self._loader = self._slots = None

    def _asking(self, split: str, rows: Tensor, view: View | None) -> list[Asked]:
        if view is None or not (self._boxes or self._own):
            return [(split, row, AS_IT_IS) for row in rows.tolist()]
        own = view if self._own else None
        if not self._boxes:
            return [(split, row, Look(None, own)) for row in rows.tolist()]
        drawn = cut_draws(view, rows.cpu())
        return [(split, row, Look(d, own)) for row, d in zip(rows.tolist(), drawn, strict=True)]

    def _bytes(self, split: str) -> int:
        channels, height, width = self._splits[split].shape
        return channels * height * width * self._splits[split].dtype.itemsize

    def _running(self, most: int) -> DataLoader[Any]:
        """The processes. most: bytes of the largest batch; where it is larger than any before, they are
        started anew, since they only know the memory that was there when they began."""
        if self._loader is None or (self._slots is not None and self._slots.size < most):
            self.close()
            if START is not None and self._workers:
                self._slots = Slots.made(AHEAD * self._workers + 1, most)
            self._loader = DataLoader(
                _Pictures(self._splits, self._augment, self._slots),
                batch_sampler=self._asked,  # type: ignore[arg-type]
                num_workers=self._workers,
                collate_fn=_as_it_is,
                worker_init_fn=_helps,
                multiprocessing_context=START if self._workers else None,
                persistent_workers=self._workers > 0,
                prefetch_factor=AHEAD if self._workers else None,
                generator=torch.Generator(),  # it draws from the global one otherwise
            )
        return self._loader


@dataclass(frozen=True)
class _Order:
    """A batch that is to be made, and the slot that it is to be put in; None: into the pipe."""

    slot: int | None
    asked: Sequence[Asked]


@dataclass(frozen=True)
class _Filled:
    """A batch that lies in a slot. shape: (n, H, W, C)."""

    slot: int
    shape: tuple[int, ...]
    dtype: str


class _ToMake:
    """What is to be made next; the loader goes through it once a pass."""

    def __init__(self) -> None:
        self.batches: Iterator[_Order] = iter(())

    def __iter__(self) -> Iterator[_Order]:
        return self.batches

    def __len__(self) -> int:
        return 0  # not known ahead; the protocol wants a number


class _Pictures(Dataset[Any]):
    """The images of all splits, a batch at a time.

    Batches lie in memory that is shared with the parent; where there is none, they travel as arrays
    through a pipe. (Shared memory with a name, which tensors would take, is small in many containers.)
    A mistake travels as its message, so that it is told in one line.
    """

    def __init__(
        self, splits: Mapping[str, FileSplit], augment: Augment | None, slots: Slots | None
    ) -> None:
        self._splits = splits
        self._augment = augment
        self._slots = slots

    def __getitem__(self, order: _Order) -> Any:
        return self.__getitems__(order)

    def __getitems__(self, order: _Order) -> np.ndarray | _Filled | str:
        first = self._splits[order.asked[0][0]]
        channels, height, width = first.shape
        shape = (len(order.asked), height, width, channels)
        dtype = str(first.dtype).removeprefix("torch.")
        if order.slot is None or self._slots is None:
            made = np.empty(shape, dtype)
        else:
            made = self._slots.array(order.slot, shape, dtype)
        try:
            for place, (split, row, look) in zip(made, order.asked, strict=True):
                place[:] = self._splits[split].image(row, self._augment, look)
        except OfframpError as error:
            return str(error)
        return made if order.slot is None else _Filled(order.slot, shape, dtype)


def _begun(loader: DataLoader[Any]) -> Iterator[Any]:
    """A pass over what is asked. torch has the end of a worker raise an error wherever this process is
    at that time; here that is left to whoever waits for the worker."""
    main = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
    before = signal.getsignal(signal.SIGCHLD) if main else None
    known = _workers(loader)
    begun = iter(loader)
    if not known:
        # A traceback that somebody keeps may hold them longer than the loader lives.
        Finalize(None, _kill, (weakref.WeakSet(_workers(loader)),), exitpriority=100)
    if main:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)
    return begun


def _workers(loader: DataLoader[Any] | None) -> Sequence[BaseProcess]:
    """Those that were started."""
    found: Sequence[BaseProcess] = getattr(getattr(loader, "_iterator", None), "_workers", ())
    return found


def _kill(workers: Iterable[BaseProcess]) -> None:
    """End helpers, which ignore the signal that would ask them to. At the end of this process too, which
    would wait for them."""
    for worker in workers:
        worker.kill()


def _helps(_: int) -> None:
    """A worker holds copies of the files its parent has open: it ends together with its parent, and not
    before it. (Where the kernel does not see to that, torch looks for the parent every five seconds.)"""
    end_with_parent(signal.SIGKILL)
    leave_signals_to_parent()


def _as_it_is(made: Any) -> Any:
    return made


def _unpacked(made: Any) -> Tensor:
    if isinstance(made, str):
        raise OfframpError(made)
    return _as_images(made)


def _as_images(made: np.ndarray) -> Tensor:
    """[n, H, W, C] as [n, C, H, W], in the same memory."""
    return torch.from_numpy(made).permute(0, 3, 1, 2)
