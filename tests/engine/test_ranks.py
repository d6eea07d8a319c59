"""Several ranks are one training: the same order of images, the same statistics, sums in one order."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from fit_runs import equal
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load
from torch import Tensor

from forks import forked
from longer import long
from offramp.engine.ranks import (
    ALONE,
    FEW,
    POLL_S,
    STEP_LIMIT,
    RankInfo,
    RankLost,
    Ranks,
    meeting_name,
)
from support import CPU

LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo"}

Tensors = dict[str, Tensor]
RanksRun = Callable[..., Tensors]


@pytest.fixture(scope="module")
def run_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RanksRun]:
    """`run_ranks("task", ranks, **args)`: what rank 0 makes of it; every rank has ended well."""
    out = tmp_path_factory.mktemp("ranks") / "tensors"
    with forked("import ranks_child; ranks_child.main()", **LOOPBACK) as process:

        @cache
        def ask(task: str, ranks: int, **args: Any) -> Tensors:
            order = {"task": task, "ranks": ranks, "args": args, "out": str(out)}
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == [0] * ranks
            return load(out.read_bytes())  # a file that is mapped would change with the next answer

        yield ask


def far(some: Tensors, others: Tensors) -> float:
    """The largest difference of any tensor, relative to its largest entry."""
    assert some.keys() == others.keys()
    pairs = [(some[name].double(), others[name].double()) for name in some]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-3)) for a, b in pairs)


@given(count=st.integers(1, 5), rows=st.integers(1, 70), batch=st.integers(1, 30), owned=st.booleans())
def test_every_row_of_a_batch_is_of_one_rank(count: int, rows: int, batch: int, owned: bool) -> None:
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(rows))
    limits = [(low, min(low + batch, rows)) for low in range(0, rows, batch)]
    every = [Ranks(rank, count) for rank in range(count)]
    shares = [ranks.shares(order, limits, owned, CPU) for ranks in every]
    for number, (low, high) in enumerate(limits):
        parts = [mine[number] for mine in shares]
        assert {part.total for part in parts} == {high - low}
        assert abs(sum(part.weight for part in parts) - 1) < 1e-9
        live = torch.cat([part.rows for part in parts if not part.idle])
        assert sorted(live.tolist()) == sorted(order[low:high].tolist())
        for ranks, part in zip(every, parts, strict=True):
            assert len(part.rows) == max(1, part.counts[ranks.rank])
            if owned:
                assert set(part.rows.tolist()) <= set(ranks.own(max(rows, count)).tolist())
            elif not part.idle:
                assert part.counts[ranks.rank] in {(high - low) // count, -(-(high - low) // count)}


def test_one_rank_is_the_batch_itself() -> None:
    order = torch.randperm(10)
    (share,) = ALONE.shares(order, [(2, 8)], owned=True, device=CPU)
    assert torch.equal(share.rows, order[2:8]) and share.weight == 1
    assert torch.equal(ALONE.slots(order), order) and torch.equal(ALONE.own(4), torch.arange(4))
    values = torch.ones(3)
    assert ALONE.sum(values) is values


def test_sums_are_in_the_order_of_ranks(run_ranks: RanksRun) -> None:
    counts = (1, 7, FEW, FEW + 1, 3 * FEW + 2)
    sums = run_ranks("sums", 3, counts=counts)
    for count in counts:
        assert len(sums[f"sum/{count}"]) == count
        assert torch.equal(sums[f"sum/{count}"], sums[f"expected/{count}"])


MEETINGS = """
import os, sys
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist

from forks import fork, status
from offramp.engine import ranks

ranks.STEP_LIMIT = timedelta(seconds=300)
server = dist.TCPStore("127.0.0.1", 0, is_master=True, multi_tenant=True)
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.port)}
os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"


class Watched:
    # A store that says when its rank waits for the other one.
    def __init__(self, store, waiting):
        self.store, self.waiting = store, waiting
        self.set = store.set

    def get(self, key):
        os.write(self.waiting, b"1")
        return self.store.get(key)

    def check(self, keys):
        answer = self.store.check(keys)
        os.write(self.waiting, b"1")
        return answer


def meet(rank, late, pipes):
    name = ranks.meeting_name
    for who, (waits, waiting) in zip(late, pipes):
        if who == rank:
            os.read(waits, 1)  # until the other one has looked, and is waiting
        ranks.meeting_name = lambda store, info: name(Watched(store, waiting), info)
        with ranks.joined(ranks.RankInfo(rank, 2, "env://"), torch.device("cpu")) as both:
            assert both.gather(torch.tensor(rank)).tolist() == [0, 1]


for late in ((None, 0, 1), (1,), (0,)):  # each in new processes, as torchrun starts them again
    pipes = [os.pipe() for _ in late]
    children = [fork(partial(meet, rank, late, pipes)) for rank in range(2)]
    if any([status(child) for child in children]):
        sys.exit(f"they did not meet: {late}")
print("met")
"""


def test_ranks_meet_again_where_they_met_before() -> None:
    """torchrun's store knows how ranks were reached that are gone. Whoever is first finds only that: the
    late one comes when the other one waits already, however slow the machine is."""
    with forked(MEETINGS, **LOOPBACK) as meetings:
        assert meetings.stdout.readline() == "met\n" and meetings.wait() == 0


class Board:
    """A store with what an earlier meeting left: the question of a rank that does not come again."""

    def __init__(self) -> None:
        self.words = {"question of 1": b"old", "1 knows earlier": b"yes"}

    def check(self, keys: list[str]) -> bool:
        return all(key in self.words for key in keys)

    def get(self, key: str) -> bytes:
        return self.words[key]

    def set(self, key: str, word: str) -> None:
        self.words[key] = word.encode()


def test_a_rank_that_does_not_come_ends_the_wait() -> None:
    """By a clock that the wait moves: after `STEP_LIMIT`, and not before."""
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += 60 * seconds

    with pytest.raises(RankLost, match="rank 1"):
        meeting_name(Board(), RankInfo(0, 2), lambda: now[0], wait)  # type: ignore[arg-type]
    limit = STEP_LIMIT.total_seconds()
    assert limit < now[0] <= limit + 60 * POLL_S


def test_orders_arrive(run_ranks: RanksRun) -> None:
    run_ranks("orders", 3)


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("rows", [2, 7])
def test_normalization_is_that_of_the_whole_batch(run_ranks: RanksRun, rows: int, ranks: int) -> None:
    """Output, gradients and running statistics; of two rows on three ranks, one rank has none. Each
    rank's own statistics, which plain data-parallel training takes, are seen to differ."""
    whole = run_ranks("normalized", 1, rows=rows)
    assert far(run_ranks("normalized", ranks, rows=rows), whole) < 1e-8
    if rows > ranks * 2:  # BatchNorm1d refuses a part of one row
        assert far(run_ranks("normalized", ranks, rows=rows, together=False), whole) > 1e-3


@pytest.mark.parametrize(
    ("strategy", "recipe", "images", "ranks"),
    [
        ("joint-two-stage", "weighted and averaged", 33, 2),
        *long(("joint", "plain", 45, 2)),
        *long(("two-stage", "weighted", 45, 2)),
        *long(("two-stage", "weighted", 45, 3)),
        *long(("distillation", "plain", 33, 2)),
        *long(("exit-ensemble", "averaged", 33, 2)),
        *long(("branch-wise", "averaged", 22, 2)),
    ],
)
def test_several_ranks_train_what_one_does(
    run_ranks: RanksRun, tmp_path: Path, strategy: str, recipe: str, images: int, ranks: int
) -> None:
    """Up to rounding: last batches that are shorter than the ranks are many, weights of classes,
    averages and distillation; the same bits again and from cached values."""
    args = {"strategy": strategy, "recipe": recipe, "images": images, "folder": str(tmp_path)}
    alike = run_ranks("trained", ranks, dropout=False, **args)
    assert far(alike, run_ranks("trained", 1, dropout=False, **args)) < 0.02
    together = run_ranks("trained", ranks, **args)
    assert equal(together, run_ranks("trained", ranks, derived=True, **args))


# A loop of one's own


@pytest.mark.parametrize(
    ("wrapper", "strategy"),
    [
        ("ddp", "distillation"),
        *long(("ddp", "joint"), ("ddp", "separate"), ("ddp", "self-distillation")),
        ("fsdp", "two-stage"),
        *long(("fsdp", "joint"), ("fsdp", "self-distillation")),
    ],
)
def test_a_loop_of_several_processes_is_that_of_one(
    run_ranks: RanksRun, wrapper: str, strategy: str
) -> None:
    """PyTorch's wrappers average the gradients of parts of a batch, which rounds otherwise: weights
    differ by less than a millionth of the largest."""
    alone, together = (run_ranks("in_a_loop", n, wrapper=wrapper, strategy=strategy) for n in (1, 2))
    assert 0 < far(together, alone) < 1e-6


def test_statistics_that_ranks_have_of_their_own_images_do_not_end_a_phase(run_ranks: RanksRun) -> None:
    """DDP hands out those of rank 0; where they are frozen, they must be the same before. The phases of
    `two-stage` are such: BatchNorm trains, and is frozen then."""
    weights = run_ranks("in_a_loop", 2, wrapper="ddp", strategy="two-stage", norm=True)
    assert all(tensor.isfinite().all() for tensor in weights.values())
