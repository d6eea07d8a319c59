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
from collections.abc import Iterator, Sequence
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
from offramp.seeding import derive

FEW = 10_000  # values below which everybody sends everything to everybody: one message, not two
PATIENCE = timedelta(days=30)  # of ranks that wait for orders: who is gone is known at once
STEP = timedelta(minutes=30)  # of those at work together, where a machine may vanish without a word
ASK_S = 0.02  # between looks at who has come


class Deserted(Exception):
    """Another rank is gone: what this one has half done is void."""


class Disbanded(Deserted):
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
    """A rank's part of a batch.

    rows: [n] int64, one at least: a rank without any takes one that counts nothing, so that all ranks
    take part in every sum.  counts: how many rows each rank has of the batch.
    """

    rows: Tensor
    counts: tuple[int, ...]
    rank: int = 0

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
    """rank: of this process, 0 leads.  count: of all.  orders: the group through which rank 0 says what
    is to be done, on the CPU; None is that of all else."""

    rank: int = 0
    count: int = 1
    orders: Any = None

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
        """This rank's part of each batch; `rows` on the device.

        order: the rows of an epoch, [N] int64 on the CPU.  limits: where each batch begins and ends.
        owned: parts are those of `own` rows, so they are of unequal sizes; else the batch is cut into
        equal ones (to a row).
        """
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
        with deserted():
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
        with deserted():
            dist.all_gather(list(gathered.unbind(0)), values.contiguous())
        return gathered

    def disband(self) -> None:
        """Leave the others in the middle of what they do together. Raises Disbanded, but with one rank
        does nothing."""
        if self.count > 1:
            raise Disbanded(f"rank {self.rank} stopped")

    def alike(self, words: str) -> bool:
        """Whether all ranks, several of them, say the same."""
        said = hashlib.sha256(words.encode()).digest()[:8]
        mine = torch.frombuffer(bytearray(said), dtype=torch.int64)
        each = [torch.empty_like(mine) for _ in range(self.count)]
        with deserted():
            dist.all_gather(each, mine, self.orders)
        return all(torch.equal(mine, other) for other in each)

    def tell(self, order: Sequence[Any] | None) -> None:
        """Rank 0's word to all others, of JSON's types; None is the last one."""
        if self.count > 1:
            text = torch.frombuffer(bytearray(json.dumps(order).encode()), dtype=torch.uint8)
            with deserted():
                dist.broadcast(torch.tensor([len(text)]), 0, self.orders)
                dist.broadcast(text, 0, self.orders)

    def hear(self) -> Iterator[list[Any]]:
        """What rank 0 tells, until the last word."""
        while True:
            size = torch.zeros(1, dtype=torch.int64)
            with deserted():
                dist.broadcast(size, 0, self.orders)
                text = torch.empty(int(size), dtype=torch.uint8)
                dist.broadcast(text, 0, self.orders)
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
def joined(seat: RankInfo, device: torch.device) -> Iterator[Ranks]:
    """This process as one of the ranks, while the block runs. device: its own.

    Raises Deserted where they do not come together.
    """
    if seat.count == 1:
        yield ALONE
        return
    backend = devices.collectives(device)
    with deserted():
        dist.init_process_group(
            backend,
            store=_meeting(seat),
            rank=seat.rank,
            world_size=seat.count,
            timeout=STEP,
            device_id=None if backend == "gloo" else device,
        )
        orders = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield Ranks(seat.rank, seat.count, orders)
    finally:
        with suppress(RuntimeError):
            dist.destroy_process_group()


def _meeting(seat: RankInfo) -> Store:
    """Where ranks tell each other how they are reached."""
    store, _, _ = next(rendezvous(seat.meeting, seat.rank, seat.count, timeout=STEP))
    store.set_timeout(STEP)
    return PrefixStore(_name_of_meeting(store, seat), store)


def _name_of_meeting(store: Store, seat: RankInfo) -> str:
    """Rank 0's word, which no meeting had before. The store of torchrun outlives a training, and the
    processes too, and what was told there stays: so an answer goes to a question that is new itself.

    Raises Deserted where not all ask.
    """
    mine = uuid.uuid4().hex
    if not seat.leads:
        store.set(f"question of {seat.rank}", mine)
        name = store.get(f"answer to {mine}").decode()
        store.set(f"{seat.rank} knows {name}", "yes")
        return name
    left, until = set(range(1, seat.count)), time.monotonic() + STEP.total_seconds()
    while left:
        if time.monotonic() > until:
            raise Deserted(f"rank {min(left)} did not come")
        for rank in left:
            if store.check([f"question of {rank}"]):  # it may be an old one
                store.set(f"answer to {store.get(f'question of {rank}').decode()}", mine)
        time.sleep(ASK_S)
        left = {rank for rank in left if not store.check([f"{rank} knows {mine}"])}
    return mine


@contextmanager
def deserted() -> Iterator[None]:
    """What torch says of a lost connection, as Deserted."""
    try:
        yield
    except RuntimeError as error:
        raise Deserted(str(error).splitlines()[0]) from None
