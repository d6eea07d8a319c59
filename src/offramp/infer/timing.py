"""Time, energy and memory of a network, measured the same way in every engine.

Neither torch nor onnxruntime is imported here, so that either can be measured without the other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import psutil

from offramp.meters.meter import Meter

PLAIN, STAYS, POLICY = WHOLE = ("plain", "nothing leaves", "policy")
WARM_UP = 2
LEAST = 5  # rounds, however long they take
METERED_S = 2.0  # of each run: meters of energy tick as seldom as ten times a second
STATUS = Path("/proc/self/status")
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Times:
    """Seconds of repeated calls, in the order they were made."""

    samples: tuple[float, ...]  # in seconds
    # of each sample where they do not count alike; their sum is 1
    weights: tuple[float, ...] | None = None

    @property
    def p50(self) -> float:
        return self.quantile(0.5)

    @property
    def p90(self) -> float:
        return self.quantile(0.9)

    @property
    def p95(self) -> float:
        return self.quantile(0.95)

    @property
    def mean(self) -> float:
        return float(np.average(self.samples, weights=self.weights))

    def quantile(self, share: float) -> float:
        if self.weights is None:
            return float(np.quantile(self.samples, share))
        order = np.argsort(self.samples)
        reached = np.cumsum(np.asarray(self.weights)[order])
        at = int(np.searchsorted(reached, share * reached[-1]))
        return float(np.asarray(self.samples)[order][min(at, len(order) - 1)])


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    repeats: int  # rounds, after WARM_UP that are not counted
    seconds: float  # beyond these there are fewer rounds, but LEAST at least


@dataclass(frozen=True)
class Timing:
    """A line of a measurement."""

    engine: str  # eager, compiled or onnxruntime
    what: str  # plain, nothing leaves, policy, or a stage
    batch: int  # images at once
    p50: float  # seconds of a batch, the median
    p95: float  # likewise, the 95th percentile
    rate: float  # images a second
    macs: float | None  # of an image on average; None where that is not known
    repeats: int  # samples
    joules: float | None = None  # of an image; None where energy was not measured
    memory: int | None = None  # bytes beside libraries; None where it was not measured


@dataclass(frozen=True)
class TimedCall:
    """A call to time."""

    what: str  # as in `Timing`
    call: Callable[[], Any]  # answers a batch, or runs a stage of it
    macs: float | None  # of an image on average; None where that is not known
    # of images that go this way, where `what` is one of several things that may happen to a single
    # image; all calls of that name make one line
    share: float = 1.0


def measure(
    engine: str,
    calls: Sequence[TimedCall],
    batch: int,
    effort: Effort,
    meter: Meter | None = None,
    *,
    wait: Callable[[], object] = lambda: None,
    most: Callable[[], int | None] = lambda: None,
    clock: Callable[[], float] = perf_counter,
) -> tuple[list[Timing], float]:
    """Time calls that take a batch, side by side: a line for each name, and the seconds that all first
    calls took, compilation included. most: bytes that the device held at most since its last call."""
    began = clock()
    for timed in calls:
        timed.call()
    wait()
    first_calls = clock() - began
    times = interleaved({at: timed.call for at, timed in enumerate(calls)}, wait, effort, clock)
    energy: dict[int, float | None] = {}
    memory: dict[int, int | None] = {}
    for at, timed in enumerate(calls):
        if meter is not None and timed.what in WHOLE:
            most()  # resets it
            energy[at] = joules(timed.call, batch, meter, wait)
            timed.call()
            memory[at] = most()
    lines = []
    for what in dict.fromkeys(timed.what for timed in calls):
        rows = [at for at, timed in enumerate(calls) if timed.what == what]
        shares = {at: calls[at].share for at in rows}
        peaks = [bytes_ for at in rows if (bytes_ := memory.get(at)) is not None]
        alike = times[rows[0]] if len(rows) == 1 else mixed([times[at] for at in rows], shares.values())
        # The rate is that of the mean of medians, which the share of slow images moves and a single
        # slow call does not.
        lines.append(
            Timing(
                engine,
                what,
                batch,
                p50=alike.p50,
                p95=alike.p95,
                rate=batch / sum(share * times[at].p50 for at, share in shares.items()),
                macs=_mean(shares, {at: calls[at].macs for at in rows}),
                repeats=min(len(times[at].samples) for at in rows),
                joules=_mean(shares, energy),
                memory=max(peaks, default=None),
            )
        )
    return lines, first_calls


def _mean(shares: Mapping[int, float], values: Mapping[int, float | None]) -> float | None:
    """None where a value is not known."""
    each = [share * x for at, share in shares.items() if (x := values.get(at)) is not None]
    return sum(each) if len(each) == len(shares) else None


def interleaved(
    calls: Mapping[Key, Callable[[], object]],
    wait: Callable[[], object],
    effort: Effort,
    clock: Callable[[], float] = perf_counter,
) -> dict[Key, Times]:
    """Call each again and again, in turns, so that whatever else the machine does meets all of them
    alike; each round begins with another one. wait: for the device, so that the clock tells the truth.
    """
    names = list(calls)
    samples: dict[Key, list[float]] = {name: [] for name in names}
    for name in names * WARM_UP:
        calls[name]()
    began = clock()
    for turn in range(effort.repeats):
        if turn >= LEAST and clock() - began > effort.seconds:
            break
        for at in range(len(names)):
            name = names[(turn + at) % len(names)]
            wait()
            start = clock()
            calls[name]()
            wait()
            samples[name].append(clock() - start)
    return {name: Times(tuple(seconds)) for name, seconds in samples.items()}


def mixed(times: Sequence[Times], shares: Iterable[float]) -> Times:
    """What is seen when each of several things happens with its share; shares of 0 are left out."""
    pairs = [(t, s) for t, s in zip(times, shares, strict=True) if s > 0]
    samples = tuple(x for t, _ in pairs for x in t.samples)
    weights = tuple(s / len(t.samples) for t, s in pairs for _ in t.samples)
    return Times(samples, weights)


def places(shares: Sequence[float], count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    """[count]: an exit's index for each of so many images, as near to the shares as whole images allow,
    in random order."""
    exact = np.asarray(shares, dtype=np.float64) * count / sum(shares)
    whole = np.floor(exact).astype(np.int64)
    missing = count - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(shares)), whole))


def joules(
    call: Callable[[], object],
    images: int,
    meter: Meter,
    wait: Callable[[], object] = lambda: None,
    seconds: float = METERED_S,
    clock: Callable[[], float] = perf_counter,
) -> float | None:
    """Joules an image, of the CPU packages and the GPU, with all that they draw meanwhile; None where
    neither is measured. call: answers `images` images, and is called for `seconds`."""
    if len(meter.missing) == 2:
        return None
    wait()
    meter.lap()
    began, turns = clock(), 0
    while turns == 0 or clock() - began < seconds:
        call()
        wait()
        turns += 1
    used = meter.lap()
    drawn = [part for part in (used.energy_cpu_j, used.energy_gpu_j) if part is not None]
    return sum(drawn) / (turns * images) if drawn else None


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """The most bytes of this process that were in memory at once."""
    if STATUS.exists():  # getrusage tells of the process that started this one, where that had more
        (line,) = (each for each in STATUS.read_text().splitlines() if each.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    import resource  # not of every system

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else 1024 * most)
