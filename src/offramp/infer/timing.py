"""Time: several things measured side by side, and what the samples come to. Neither torch nor
onnxruntime is imported here, so that either can be measured without the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from offramp.infer.footprint import NOTHING, Footprint

ToTime = dict[str, Callable[[], Any]]
PLAIN, STAYS, POLICY = WHOLE = ("plain", "nothing leaves", "policy")
WARM_UP = 2
LEAST = 5  # rounds, however long they take


@dataclass(frozen=True)
class Times:
    """Seconds of repeated calls, in the order they were made. weights: of each sample where they do not
    count alike; they add up to 1."""

    samples: tuple[float, ...]
    weights: tuple[float, ...] | None = None

    @property
    def p50(self) -> float:
        return self.quantile(0.5)

    @property
    def p95(self) -> float:
        return self.quantile(0.95)

    @property
    def mean(self) -> float:
        return float(np.average(self.samples, weights=self.weights))

    @property
    def p90(self) -> float:
        return self.quantile(0.9)

    def quantile(self, share: float) -> float:
        if self.weights is None:
            return float(np.quantile(self.samples, share))
        order = np.argsort(self.samples)
        reached = np.cumsum(np.asarray(self.weights)[order])
        at = int(np.searchsorted(reached, share * reached[-1]))
        return float(np.asarray(self.samples)[order][min(at, len(order) - 1)])


@dataclass(frozen=True)
class Effort:
    """How long to measure: `repeats` rounds, after WARM_UP that are not counted; fewer, but LEAST at
    least, where they take longer than `seconds`."""

    repeats: int
    seconds: float


def interleaved(
    runs: Mapping[str, Callable[[], object]],
    wait: Callable[[], None],
    effort: Effort,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, Times]:
    """Call each of `runs` again and again, in turns, so that whatever else the machine does meets all
    of them alike; each round begins with another one.

    wait: for the device, so that a clock tells the truth.  clock: in seconds.
    """
    names = list(runs)
    found: dict[str, list[float]] = {name: [] for name in names}
    for name in names * WARM_UP:
        runs[name]()
    began = clock()
    for turn in range(effort.repeats):
        if turn >= LEAST and clock() - began > effort.seconds:
            break
        for at in range(len(names)):
            name = names[(turn + at) % len(names)]
            wait()
            start = clock()
            runs[name]()
            wait()
            found[name].append(clock() - start)
    return {name: Times(tuple(samples)) for name, samples in found.items()}


def mixed(times: Sequence[Times], shares: Sequence[float]) -> Times:
    """What is seen when each of several things happens with its share; shares of 0 are left out."""
    pairs = [(t, s) for t, s in zip(times, shares, strict=True) if s > 0]
    samples = tuple(x for t, _ in pairs for x in t.samples)
    weights = tuple(s / len(t.samples) for t, s in pairs for _ in t.samples)
    return Times(samples, weights)


@dataclass(frozen=True)
class Timing:
    """A measurement. engine: eager, compiled or onnxruntime.  what: plain, nothing leaves, policy, or a
    stage.  batch: images at once.  p50, p95: seconds of a batch.  rate: images a second.  macs: of an
    image on average; None where it is not known.  repeats: samples.  joules: of an image.  memory: bytes
    beside libraries. The last two are None where they were not measured."""

    engine: str
    what: str
    batch: int
    p50: float
    p95: float
    rate: float
    macs: float | None
    repeats: int
    joules: float | None = None
    memory: int | None = None


def timing(
    engine: str, what: str, batch: int, times: Times, macs: float | None, drawn: Footprint = NOTHING
) -> Timing:
    return Timing(
        engine,
        what,
        batch,
        p50=times.p50,
        p95=times.p95,
        rate=batch / times.p50,
        macs=macs,
        repeats=len(times.samples),
        joules=drawn.joules,
        memory=drawn.memory,
    )


def mixture(
    engine: str, parts: Sequence[tuple[Times, Footprint]], shares: Sequence[float], macs: float | None
) -> Timing:
    """The line of a policy for single images: what was seen, by exit, of images that leave there. Its
    rate is that of the mean, which the share of slow images moves and a single slow call does not."""
    there = [(times, drawn, share) for (times, drawn), share in zip(parts, shares, strict=True) if share]
    times = mixed([times for times, _, _ in there], [share for _, _, share in there])
    mean = sum(share * times.p50 for times, _, share in there)
    joules = [share * drawn.joules for _, drawn, share in there if drawn.joules is not None]
    memory = max((drawn.memory for _, drawn, _ in there if drawn.memory is not None), default=None)
    energy = sum(joules) if len(joules) == len(there) else None
    count = min(len(times.samples) for times, _, _ in there)
    return Timing(
        engine,
        POLICY,
        batch=1,
        p50=times.p50,
        p95=times.p95,
        rate=1 / mean,
        macs=macs,
        repeats=count,
        joules=energy,
        memory=memory,
    )


def places(shares: Sequence[float], count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    """[count]: an exit's index for each of so many images, as near to the shares as whole images allow,
    in random order."""
    exact = np.asarray(shares, dtype=np.float64) * count / sum(shares)
    whole = np.floor(exact).astype(np.int64)
    missing = count - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(shares)), whole))
