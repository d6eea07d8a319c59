"""Time, energy and memory of a network, measured the same way in every engine.

A `Subject` says what there is to time of it, and `measure` times all of that side by side. Neither torch
nor onnxruntime is imported here, so that either can be measured without the other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, TypeVar

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


@dataclass(frozen=True)
class MeasuredCall:
    """A call and what it took. joules: of an image; memory: bytes; None where they were not measured."""

    call: TimedCall
    times: Times
    joules: float | None = None
    memory: int | None = None


class Subject(Protocol):
    """A network that can be measured, in some engine."""

    @property
    def engine(self) -> str: ...

    def calls(self, batch: int) -> Sequence[TimedCall]:
        """What there is to time with so many images at once: the whole network in each way of WHOLE that
        it can run, then stages."""
        ...

    def wait(self) -> None:
        """Until the device is done, so that a clock tells the truth."""
        ...

    def peak(self) -> int | None:
        """The most bytes that the device held since the last call; None where that is not known."""
        ...


def measure(
    subject: Subject,
    batch: int,
    effort: Effort,
    meter: Meter | None = None,
    clock: Callable[[], float] = perf_counter,
) -> tuple[list[Timing], float]:
    """Time everything that a subject can do with a batch of noise, side by side. meter: with one that
    runs, energy is measured too. Returns a line for each thing timed, and the seconds that all first
    calls took, compilation included."""
    began = clock()
    calls = subject.calls(batch)
    for timed in calls:
        timed.call()
    subject.wait()
    first_calls = clock() - began
    times = interleaved({at: timed.call for at, timed in enumerate(calls)}, subject.wait, effort, clock)
    lines: dict[str, list[MeasuredCall]] = {}
    for at, timed in enumerate(calls):
        energy, memory = None, None
        if meter is not None and timed.what in WHOLE:
            subject.peak()  # resets it
            energy = joules(timed.call, batch, meter, subject.wait)
            timed.call()
            memory = subject.peak()
        lines.setdefault(timed.what, []).append(MeasuredCall(timed, times[at], energy, memory))
    return [_line(subject.engine, batch, parts) for parts in lines.values()], first_calls


def _line(engine: str, batch: int, parts: Sequence[MeasuredCall]) -> Timing:
    """The line of a call, or of several of which each happens with its share. The rate of those is that
    of their mean, which the share of slow images moves and a single slow call does not."""

    shares = [part.call.share for part in parts]

    def mean(values: Sequence[float | None]) -> float | None:
        each = [share * x for share, x in zip(shares, values, strict=True) if x is not None]
        return sum(each) if len(each) == len(parts) else None

    times = parts[0].times
    if len(parts) > 1:
        times = mixed([part.times for part in parts], shares)
    return Timing(
        engine,
        parts[0].call.what,
        batch,
        p50=times.p50,
        p95=times.p95,
        rate=batch / sum(part.call.share * part.times.p50 for part in parts),
        macs=mean([part.call.macs for part in parts]),
        repeats=min(len(part.times.samples) for part in parts),
        joules=mean([part.joules for part in parts]),
        memory=max((part.memory for part in parts if part.memory is not None), default=None),
    )


def interleaved(
    calls: Mapping[Key, Callable[[], object]],
    wait: Callable[[], None],
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


def mixed(times: Sequence[Times], shares: Sequence[float]) -> Times:
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
    wait: Callable[[], None] = lambda: None,
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
