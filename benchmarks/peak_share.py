"""What bounds a joint training step: arithmetic, memory, or what is between the kernels.

A step of the engine is timed in turns with this machine's peaks, in one process and with the settings of
a run. What the step multiplies and moves is listed operation by operation (ledger.py), as the same step
by hand runs them; that listing tells how time is split as well.

Counted are convolutions and matrix products, forward and backward: 6 FLOPs for each multiply-accumulate
of the forward pass, 4 in the first layer, whose images need no gradient. Where a factor is a zero of
padding there is no work: on the 1×1 maps that small images end in, that is eight ninths of a 3×3
convolution. The ratio is the share of the higher of both peaks. Bytes are the least: what an operation
reads and writes goes over the wire once. Between two operations nothing is taken to stay in a cache;
where it does, a share of memory's speed can be above 100 %.

An operation is bound by what it reaches REACHED of, arithmetic or memory; many reach neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F

from benchmarks import step_by_hand as hand
from benchmarks.contest import AS_COMMAND, Contender, Result, Say, percent
from benchmarks.ledger import KINDS, Ledger, Operation
from benchmarks.step import CASES, way
from benchmarks.step_by_hand import Case
from offramp import device as devices
from offramp.engine.settings import applied
from offramp.numerics import Numerics, profile
from offramp.process import keep_freed_memory

LISTED = 3  # steps, after one that warms up: of each operation the fastest counts
REACHED = 0.4  # of a peak: from which on it is what bounds an operation
MUCH = 0.3  # of the time: from which on a bound is named first
SIDE = 2048  # of the matrices
FAR = 2**25  # numbers in each of three arrays: 128 MiB, beyond any cache


@dataclass(frozen=True)
class Peaks:
    """FLOP/s of a matrix product and of a dense convolution, in float32; bytes a second between cores
    and memory."""

    product: float
    convolution: float
    memory: float

    @property
    def arithmetic(self) -> float:
        """The higher of the two."""
        return max(self.product, self.convolution)


@dataclass(frozen=True)
class Turn:
    """seconds: of a step.  peaks: measured right after it."""

    seconds: float
    peaks: Peaks


def measure(quick: bool, say: Say) -> Iterator[Result]:
    """The share of peak of each network."""
    with ExitStack() as stack:
        listing = stack.enter_context(Contender(lister, AS_COMMAND))
        timing = stack.enter_context(Contender(timer, AS_COMMAND))
        for case in (replace(c, steps=max(1, c.steps // 2)) if quick else c for c in CASES):
            operations = listing(case)
            timing(case)  # warms up
            turns = [timing(case) for _ in range(2 if quick else 5)]
            flops = sum(o.flops for o in operations)
            found = [flops / turn.seconds / turn.peaks.arithmetic for turn in turns]
            middle = {n: median(getattr(t.peaks, n) for t in turns) for n in Peaks.__annotations__}
            words = note(operations, Turn(median(t.seconds for t in turns), Peaks(**middle)), case.batch)
            say(f"  {case.name}: {words}")
            yield Result(
                f"share of peak: {case.name}",
                median(found),
                better="higher",
                spread=(min(found), max(found)),
                note=words,
            )


def timer() -> Callable[[Case], Turn]:
    """For a contender: an epoch of the engine, then the peaks, in the settings that it left in force."""
    epochs = way("engine")
    return lambda case: Turn(epochs(case).seconds, peaks(devices.chosen()))


def lister() -> Callable[[Case], list[Operation]]:
    """For a contender: the operations of a step."""
    keep_freed_memory()
    return operations_of


def operations_of(case: Case, numerics: Numerics | None = None) -> list[Operation]:
    """The operations of a step by hand with the settings of a run."""
    where = devices.chosen()
    with applied(numerics or profile("default", where.type)):
        model, optimizer = hand.placed_by_hand(case, where)
        images = torch.randn(case.batch, 3, case.pixels, case.pixels, device=where)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.arange(case.batch, device=where) % hand.CLASSES
        hand.step(model, optimizer, images, labels)
        ledgers = [Ledger(where) for _ in range(LISTED)]
        for ledger in ledgers:
            with ledger:
                hand.step(model, optimizer, images, labels)
    same = zip(*(ledger.operations for ledger in ledgers), strict=True)
    return [min(times, key=lambda operation: operation.seconds) for times in same]


def note(operations: Sequence[Operation], turn: Turn, batch: int) -> str:
    """What bounds a step, in words."""
    high = turn.peaks
    flops = sum(o.flops for o in operations) / turn.seconds
    padded = sum(o.padded_flops for o in operations) / turn.seconds
    whole = max(turn.seconds, sum(o.seconds for o in operations))
    spent = {kind: sum(o.seconds for o in operations if o.kind == kind) / whole for kind in KINDS}
    order = sorted(spent, key=spent.__getitem__, reverse=True)
    kinds = ", ".join(f"{kind} {percent(spent[kind])}" for kind in order)
    return (
        f"bound by {verdict(operations, whole, high)}; batch {batch}, {1000 * turn.seconds:.0f} ms: "
        f"{flops / 1e9:.0f} GFLOP/s (peaks: convolution {high.convolution / 1e9:.0f}, matrix product "
        f"{high.product / 1e9:.0f}), {percent(padded / high.arithmetic)} of peak if zeros of padding "
        f"count; memory {high.memory / 1e9:.0f} GB/s; time: {kinds}"
    )


def verdict(operations: Sequence[Operation], whole: float, high: Peaks) -> str:
    """What bounds them, and for how much of the time. whole: seconds of all that ran; what operations
    leave of it goes to Python and to handing them out."""
    neither, between = "kernels that reach neither", "what is between operations"
    spent = dict.fromkeys(("arithmetic", "memory", neither, between), 0.0)
    for o in operations:
        least = {"arithmetic": o.flops / high.arithmetic, "memory": o.bytes / high.memory}
        nearer = max(least, key=least.__getitem__)
        spent[nearer if least[nearer] >= REACHED * o.seconds else neither] += o.seconds
    spent[between] = whole - sum(spent.values())
    order = sorted(spent, key=spent.__getitem__, reverse=True)
    first = [what for what in order if spent[what] >= MUCH * whole] or order[:1]
    each = ", ".join(f"{what} {percent(spent[what] / whole)}" for what in order)
    return f"{' and '.join(first)} ({each})"


def peaks(device: torch.device, side: int = SIDE, far: int = FAR) -> Peaks:
    """The best of a few tries each, with the settings that are in force."""
    with torch.no_grad():
        return Peaks(product(device, side), convolution(device), triad(device, far))


def product(device: torch.device, side: int) -> float:
    """FLOP/s of a product of two square matrices."""
    a, b = torch.randn(2, side, side, device=device)
    out = torch.empty_like(a)
    return 2 * side**3 / _fastest(lambda: torch.mm(a, b, out=out), device)


def convolution(device: torch.device, batch: int = 32, channels: int = 256, pixels: int = 14) -> float:
    """FLOP/s of a 3×3 convolution, channels-last; the image is wider by its border, so no factor is a
    zero of padding."""
    images = torch.randn(batch, channels, pixels + 2, pixels + 2, device=device)
    weight = torch.randn(channels, channels, 3, 3, device=device)
    images, weight = (t.contiguous(memory_format=torch.channels_last) for t in (images, weight))
    return 2 * batch * (channels * pixels * 3) ** 2 / _fastest(lambda: F.conv2d(images, weight), device)


def triad(device: torch.device, numbers: int) -> float:
    """Bytes a second of `a = b + s · c` (McCalpin's STREAM): two arrays read, one written."""
    a, b, c = torch.ones(3, numbers, device=device)
    return 3 * a.nbytes / _fastest(lambda: torch.add(b, c, alpha=3.0, out=a), device)


def _fastest(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of five tries, after one that does not count."""
    times = []
    for _ in range(6):
        devices.synchronize(device)
        began = perf_counter()
        run()
        devices.synchronize(device)
        times.append(perf_counter() - began)
    return min(times[1:])
