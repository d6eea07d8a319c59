"""The processes that train a phase together, a device each: who takes which rows, and what they add up.

Every rank holds the whole network, and all of them take the same step. What a rank computes of its rows
is added to what the others did, in the order of ranks, so no sum depends on who was first or on how a
library routes it (docs/decisions/ranks.md). With one rank none of it does anything.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from offramp import device as devices
from offramp.hashing import derive

FEW = 10_000  # values below which everybody sends everything to everybody: one message, not two
IDLE_LIMIT = timedelta(days=30)  # of ranks that wait for orders: a lost connection shows at once
STEP_LIMIT = timedelta(minutes=30)  # of ranks at work: a machine may vanish without a word
POLL_S = 0.02  # between looks at who has come


class RankLost(Exception):
    """Another rank is gone: what this one has half done is void."""


class RankStopped(RankLost):
    """This rank leaves the others in the middle of a phase, for a reason that it has told."""


@dataclass(frozen=True)
class RankInfo:
    """Which of a training's `count` processes one is, and where they find each other: a URL as torch
    takes it."""

    rank: int = 0
    count: int = 1
    meeting: str = ""

    @property
    def leads(self) -> bool:
        return self.rank == 0


ONLY = RankInfo()


@dataclass(frozen=True)
class BatchShare:
    """A rank's part of a batch."""

    # [n] int64, one at least: a rank without any takes one that counts nothing, so that all ranks take
    # part in every sum
    rows: Tensor
    counts: tuple[int, ...]  # of the rows of each rank
    rank: int = 0  # whose part it is

    @property
    def total(self) -> int:
        return sum(self.counts)

    @property
    def idle(self) -> bool:
        return self.counts[self.rank] == 0

    @property
    def weight(self) -> float:
        """Of a mean over this part in the mean over the batch."""
        return self.counts[self.rank] / self.total


@dataclass(frozen=True)
class Ranks:
    """The ranks of a training, as one of them sees them; 0 leads."""

    rank: int = 0  # of this process
    count: int = 1  # of all
    # through which rank 0 sends orders, on the CPU; None is the group of all else
    order_group: Any = None

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def noise(self, seed: int) -> int:
        """The seed from which this rank draws dropout; each drops others."""
        return seed if self.leads else derive(seed, "rank", self.rank)

    def own(self, count: int) -> Tensor:
        """The rows of a split of `count` images that this rank evaluates and caches: every so many."""
        return torch.arange(self.rank, count, self.count)

    def slots(self, rows: Tensor) -> Tensor:
        """Where rows stand among `own` ones."""
        return rows if self.count == 1 else rows // self.count

    def shares(
        self, order: Tensor, limits: Sequence[tuple[int, int]], owned: bool, device: torch.device
    ) -> list[BatchShare]:
        """This rank's part of each batch of an epoch, with its rows on the device. owned: parts are
        those of `own` rows, so they are of unequal sizes; else the batch is cut into equal ones (to a
        row)."""
        parts, counts = [], []
        for low, high in limits:
            batch = order[low:high]
            pieces = self._owned(batch) if owned else list(torch.tensor_split(batch, self.count))
            mine = pieces[self.rank]
            parts.append(mine if len(mine) else torch.tensor([self.rank]))
            counts.append(tuple(map(len, pieces)))
        if not parts:
            return []
        moved = torch.split(torch.cat(parts).to(device), [len(part) for part in parts])
        return [BatchShare(rows, sizes, self.rank) for rows, sizes in zip(moved, counts, strict=True)]

    def _owned(self, batch: Tensor) -> list[Tensor]:
        if self.count == 1:
            return [batch]
        return [batch[batch % self.count == rank] for rank in range(self.count)]

    def sum(self, values: Tensor) -> Tensor:
        """The sum of every rank's `values`, in the order of ranks; in `values` itself with one rank."""
        if self.count == 1:
            return values
        flat = values.contiguous().view(-1)
        if len(flat) <= FEW:
            return _added(self.gather(flat)).view_as(values)
        # Each rank adds one piece up for all: as much is sent as by any library's own sum.
        size = -(-len(flat) // self.count)
        padded = torch.zeros(size * self.count, dtype=flat.dtype, device=flat.device)
        padded[: len(flat)] = flat
        theirs = torch.empty_like(padded)
        with lost_connections():
            dist.all_to_all_single(theirs, padded)
        return self.gather(_added(theirs.view(self.count, size))).view(-1)[: len(flat)].view_as(values)

    def sum_(self, tensors: Sequence[Tensor], more: Tensor) -> Tensor:
        """Put the sum over ranks into each of `tensors`, which are of one type; returns that of `more`.
        All of it travels at once, as that type."""
        if self.count == 1:
            return more
        every = [*tensors, more.to(tensors[0])]
        total = self.sum(torch.cat([t.reshape(-1) for t in every]))
        *summed, last = torch.split(total, [t.numel() for t in every])
        for tensor, values in zip(tensors, summed, strict=True):
            tensor.copy_(values.view(tensor.shape))
        return last.to(more.dtype).view_as(more)

    def gather(self, values: Tensor) -> Tensor:
        """[ranks, …]: what each has; equal shapes."""
        if self.count == 1:
            return values[None]
        gathered = values.new_empty((self.count, *values.shape))
        with lost_connections():
            dist.all_gather(list(gathered.unbind(0)), values.contiguous())
        return gathered

    def disband(self) -> None:
        """Leave the others in the middle of what they do together. Raises RankStopped, but with one rank
        does nothing."""
        if self.count > 1:
            raise RankStopped(f"rank {self.rank} stopped")

    def agree(self, text: str) -> bool:
        """Whether all ranks, several of them, have the same text."""
        digest = hashlib.sha256(text.encode()).digest()[:8]
        mine = torch.frombuffer(bytearray(digest), dtype=torch.int64)
        each = [torch.empty_like(mine) for _ in range(self.count)]
        with lost_connections():
            dist.all_gather(each, mine, self.order_group)
        return all(torch.equal(mine, other) for other in each)

    def send(self, order: Sequence[Any] | None) -> None:
        """From rank 0 to all others, an order of JSON's types; None is the last one."""
        if self.count > 1:
            text = torch.frombuffer(bytearray(json.dumps(order).encode()), dtype=torch.uint8)
            with lost_connections():
                dist.broadcast(torch.tensor([len(text)]), 0, self.order_group)
                dist.broadcast(text, 0, self.order_group)

    def orders(self) -> Iterator[list[Any]]:
        """What rank 0 sends, until the last order."""
        while True:
            size = torch.zeros(1, dtype=torch.int64)
            with lost_connections():
                dist.broadcast(size, 0, self.order_group)
                text = torch.empty(int(size), dtype=torch.uint8)
                dist.broadcast(text, 0, self.order_group)
            order = json.loads(bytes(text.tolist()))
            if order is None:
                return
            yield order


ALONE = Ranks()


def _added(pieces: Tensor) -> Tensor:
    """[ranks, n] added up one after another."""
    total = pieces[0]
    for piece in pieces[1:]:
        total = total + piece
    return total


@contextmanager
def joined(info: RankInfo, device: torch.device) -> Iterator[Ranks]:
    """This process as one of the ranks, while the block runs; `device` is its own.

    Raises RankLost where they do not come together.
    """
    if info.count == 1:
        yield ALONE
        return
    backend = devices.collectives(device)
    with lost_connections():
        dist.init_process_group(
            backend,
            store=_meeting(info),
            rank=info.rank,
            world_size=info.count,
            timeout=STEP_LIMIT,
            device_id=None if backend == "gloo" else device,
        )
        order_group = dist.new_group(backend="gloo", timeout=IDLE_LIMIT)
    try:
        yield Ranks(info.rank, info.count, order_group)
    finally:
        with suppress(RuntimeError):
            dist.destroy_process_group()


def _meeting(info: RankInfo) -> Store:
    """Where ranks tell each other how they are reached."""
    store, _, _ = next(rendezvous(info.meeting, info.rank, info.count, timeout=STEP_LIMIT))
    store.set_timeout(STEP_LIMIT)
    return PrefixStore(meeting_name(store, info), store)


def meeting_name(
    store: Store,
    info: RankInfo,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> str:
    """A name that rank 0 draws, and that no meeting had before.

    The store of torchrun outlives a training, and the processes too, and what was written there stays:
    so an answer goes to a question that is new itself.

    Raises:
        RankLost: Where not all ask within `STEP_LIMIT`.
    """
    mine = uuid.uuid4().hex
    if not info.leads:
        store.set(f"question of {info.rank}", mine)
        name = store.get(f"answer to {mine}").decode()
        store.set(f"{info.rank} knows {name}", "yes")
        return name
    missing, until = set(range(1, info.count)), clock() + STEP_LIMIT.total_seconds()
    while missing:
        if clock() > until:
            raise RankLost(f"rank {min(missing)} did not come")
        for rank in missing:
            if store.check([f"question of {rank}"]):  # it may be an old one
                store.set(f"answer to {store.get(f'question of {rank}').decode()}", mine)
        wait(POLL_S)
        missing = {rank for rank in missing if not store.check([f"{rank} knows {mine}"])}
    return mine


@contextmanager
def lost_connections() -> Iterator[None]:
    """What torch raises of a lost connection becomes RankLost."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(str(error).splitlines()[0]) from None
