"""What bounds a joint training step: arithmetic, memory, or what is between the kernels.

A step of the engine is timed in turns with this machine's peaks (`benchmarks.peaks`), in one process and
with the settings of a run. What the step multiplies and moves is listed operation by operation
(`benchmarks.ledger`), as the same step by hand runs them; that listing tells how time is split as well.

Counted are convolutions and matrix products, forward and backward: 6 FLOPs for each multiply-accumulate
of the forward pass, 4 in the first layer, whose images need no gradient. Where a factor is a zero of
padding there is no work: on the 1×1 maps that small images end in, that is eight ninths of a 3×3
convolution. The ratio is the share of the higher of both peaks. Bytes are the least: what an operation
reads and writes goes over the wire once. Between two operations nothing is taken to stay in a cache;
where it does, a share of memory's speed can be above 100 %.

An operation is bound by what it reaches REACHED of, arithmetic or memory; many reach neither.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch

from benchmarks.ledger import Ledger, Operation
from benchmarks.loops import CLASSES, Case, placed_by_hand
from benchmarks.loops import step as by_hand_step
from benchmarks.peaks import Peaks, peaks
from benchmarks.runs import AS_COMMAND
from benchmarks.side import Contender, Result, machine
from benchmarks.step import CASES, way
from offramp import device as devices
from offramp.allocator import keep_freed_memory
from offramp.engine.settings import applied
from offramp.numerics import Numerics, profile

ROUNDS, QUICK_ROUNDS = 5, 2
LISTED = 3  # steps, after one that warms up: of each operation the fastest counts
REACHED = 0.4  # of a peak: from which on it is what bounds an operation
MUCH = 0.3  # of the time: from which on a bound is named first


@dataclass(frozen=True)
class Turn:
    """seconds: of a step.  peaks: measured right after it."""

    seconds: float
    peaks: Peaks


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Result]:
    """A result for each network."""
    cases = [replace(case, steps=max(1, case.steps // 2)) if quick else case for case in CASES]
    yield from shares(cases, QUICK_ROUNDS if quick else ROUNDS, say)


def shares(cases: Sequence[Case], rounds: int, say: Callable[[str], None]) -> Iterator[Result]:
    """The share of peak of these cases."""
    with ExitStack() as stack:
        listing = stack.enter_context(Contender(lister, AS_COMMAND))
        timing = stack.enter_context(Contender(timer, AS_COMMAND))
        for case in cases:
            operations = listing(case)
            timing(case)  # warms up
            turns = [timing(case) for _ in range(rounds)]
            result = _result(case, operations, turns)
            say(f"  {case.name}: {result.note}")
            yield result


def timer() -> Callable[[Case], Turn]:
    """For a contender: an epoch of the engine, then the peaks, in the settings that it left in force."""
    epochs = way("engine")

    def run(case: Case) -> Turn:
        return Turn(epochs(case).seconds, peaks(devices.chosen()))

    return run


def lister() -> Callable[[Case], list[Operation]]:
    """For a contender: the operations of a step."""
    keep_freed_memory()
    return operations_of


def operations_of(case: Case, numerics: Numerics | None = None) -> list[Operation]:
    """The operations of a step by hand with the settings of a run."""
    where = devices.chosen()
    with applied(numerics or profile("default", where.type)):
        model, optimizer = placed_by_hand(case, where)
        images = torch.randn(case.batch, 3, case.pixels, case.pixels, device=where)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.arange(case.batch, device=where) % CLASSES
        by_hand_step(model, optimizer, images, labels)
        ledgers = [Ledger(where) for _ in range(LISTED)]
        for ledger in ledgers:
            with ledger:
                by_hand_step(model, optimizer, images, labels)
    same = zip(*(ledger.operations for ledger in ledgers), strict=True)
    return [min(times, key=lambda operation: operation.seconds) for times in same]


def _result(case: Case, operations: Sequence[Operation], turns: Sequence[Turn]) -> Result:
    flops = sum(o.flops for o in operations)
    found = [flops / turn.seconds / turn.peaks.arithmetic for turn in turns]
    return Result(
        f"share of peak: {case.name}",
        statistics.median(found),
        None,
        "higher",
        (min(found), max(found)),
        machine(),
        note(operations, _middle(turns), case.batch),
    )


def _middle(turns: Sequence[Turn]) -> Turn:
    """Medians of the turns."""
    names = Peaks.__dataclass_fields__
    middle = {name: statistics.median(getattr(t.peaks, name) for t in turns) for name in names}
    return Turn(statistics.median(t.seconds for t in turns), Peaks(**middle))


def note(operations: Sequence[Operation], turn: Turn, batch: int) -> str:
    """What bounds a step, in words."""
    high = turn.peaks
    flops, padded, moved = (
        sum(getattr(o, name) for o in operations) for name in ("flops", "padded_flops", "bytes")
    )
    speed, wire = flops / turn.seconds, moved / turn.seconds
    whole = max(turn.seconds, sum(o.seconds for o in operations))
    return "; ".join(
        (
            f"bound by {verdict(operations, whole, high)}",
            f"batch {batch}, {1000 * turn.seconds:.0f} ms: {speed / 1e9:.0f} GFLOP/s (peaks: convolution"
            f" {high.convolution / 1e9:.0f}, matrix product {high.product / 1e9:.0f}), "
            f"{_percent(padded / turn.seconds / high.arithmetic)} of peak if zeros of padding count",
            f"{wire / 1e9:.1f} GB/s (memory {high.memory / 1e9:.0f}, cache {high.cache / 1e9:.0f})",
            f"time: {_by_kind(operations, whole, high)}",
        )
    )


def verdict(operations: Sequence[Operation], whole: float, high: Peaks) -> str:
    """What bounds them, and for how much of the time. whole: seconds of all that ran; what operations
    leave of it goes to Python and to handing them out."""
    spent = dict.fromkeys(
        ("arithmetic", "memory", "kernels that reach neither", "what is between operations"), 0.0
    )
    for o in operations:
        least = {"arithmetic": o.flops / high.arithmetic, "memory": o.bytes / high.memory}
        nearer = max(least, key=least.__getitem__)
        reached = least[nearer] >= REACHED * o.seconds
        spent[nearer if reached else "kernels that reach neither"] += o.seconds
    spent["what is between operations"] = whole - sum(spent.values())
    order = sorted(spent, key=spent.__getitem__, reverse=True)
    first = [what for what in order if spent[what] >= MUCH * whole] or order[:1]
    said = ", ".join(f"{what} {_percent(spent[what] / whole)}" for what in order)
    return f"{' and '.join(first)} ({said})"


def _by_kind(operations: Sequence[Operation], whole: float, high: Peaks) -> str:
    kinds = dict.fromkeys(o.kind for o in operations)
    spent = {kind: sum(o.seconds for o in _of(kind, operations)) for kind in kinds}
    said = []
    for kind in sorted(kinds, key=spent.__getitem__, reverse=True):
        if spent[kind] < 0.01 * whole:
            continue
        flops = sum(o.flops for o in _of(kind, operations)) / spent[kind] / high.arithmetic
        moved = sum(o.bytes for o in _of(kind, operations)) / spent[kind] / high.memory
        rates = f"{_percent(flops)} of peak, " if flops else ""
        said.append(f"{kind} {_percent(spent[kind] / whole)} ({rates}{_percent(moved)} of memory)")
    return ", ".join(said)


def _of(kind: str, operations: Iterable[Operation]) -> Iterator[Operation]:
    return (o for o in operations if o.kind == kind)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
