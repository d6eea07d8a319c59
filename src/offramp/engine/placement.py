"""Where frozen values of whole splits are cached: in memory, on disk, or nowhere, computed live.

A model of time, in seconds. No result depends on it: a value is the same bits wherever it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never, get_args

from offramp.augment import Augment, View
from offramp.engine.resolve import Node
from offramp.engine.values import IMAGES, FrozenValue, Point, reads_of
from offramp.nets.network import ExitNetwork

Medium = Literal["memory", "disk"]
PLACES: tuple[Medium, ...] = get_args(Medium)
SplitView = tuple[str, View | None]  # a split, and the random view of its images (None: as they are)
ValueName = tuple[FrozenValue, SplitView]
Placed = dict[ValueName, Medium]  # what is not in it stays live


@dataclass(frozen=True)
class Speeds:
    """What a machine does in a second."""

    macs: float  # of frozen layers
    memory: float  # bytes of random rows, gathered from memory
    disk: float  # bytes of random rows, gathered from files
    pixels: float  # of images that are read and normalized, in bytes of uint8

    def of(self, medium: Medium) -> float:
        """Bytes that are gathered from there."""
        match medium:
            case "memory":
                return self.memory
            case "disk":
                return self.disk
            case _:
                assert_never(medium)


# Of two cores of a server (docs/decisions/execution.md); the disk is a guess at an SSD. A factor of two
# in any of them decides little: in memory, all that is read twice is worth its room.
CPU = Speeds(macs=50e9, memory=8e9, disk=0.5e9, pixels=0.5e9)
GPU = Speeds(macs=5e12, memory=500e9, disk=0.5e9, pixels=10e9)
MOVES = 4  # times that what a layer puts out passes through memory until the next one has it: written by
# the convolution, read and written by normalization and activation
CLOSINGS = 2  # passes of a phase over train at its end: for its last and its best weights


def assumed(device: str) -> Speeds:
    """The speeds of a class of devices."""
    return CPU if device == "cpu" else GPU


@dataclass(frozen=True)
class CacheCandidate:
    """A frozen value that phases are about to read, of all rows of a split."""

    value: FrozenValue
    look: SplitView
    size: int  # bytes
    reads: int  # passes over it
    # what computes it, from the images or the nearest cached value up to itself: values, each with the
    # seconds of that step for all rows
    steps: tuple[tuple[FrozenValue, float], ...]

    @property
    def name(self) -> ValueName:
        return self.value, self.look

    @property
    def passed(self) -> frozenset[FrozenValue]:
        """The values on its way, itself among them."""
        return frozenset(step for step, _ in self.steps)


def looks(augment: Augment | None, seed: int, epochs: int) -> dict[SplitView, tuple[int, bool]]:
    """What is read more than once: in how many of the epochs, and whether at the end of a phase too.

    A view that is drawn anew each epoch is not among them.
    """
    if augment is None:
        return {("train", None): (epochs, True), ("validation", None): (epochs, False)}
    views = augment.distinct(epochs)
    again: dict[SplitView, tuple[int, bool]] = {
        ("train", augment.view(seed, n)): (len(range(n, epochs, views)), False)
        for n in range(views if views < epochs else 0)
    }
    return {("validation", None): (epochs, False), **again, ("train", None): (0, True)}


def cache_candidates(
    nodes: Sequence[Node],
    net: ExitNetwork,
    sizes: Mapping[Point, int],
    counts: Mapping[str, int],
    augment: Augment | None,
    speeds: Speeds,
    cached: Collection[ValueName],
) -> list[CacheCandidate]:
    """What a group of nodes will read again and again, for `place`. sizes: bytes an image; counts:
    images of `train` and `validation`; cached: what is in the cache already, at which what is computed
    begins."""
    readers: dict[FrozenValue, list[Node]] = {}
    for node in nodes:
        for value in reads_of(node):
            if value.point != IMAGES:
                readers.setdefault(value, []).append(node)
    longest = max(node.recipe.epochs for node in nodes)
    every = []
    for look in looks(augment, nodes[0].seed, longest):
        count = counts[look[0]]
        for value, by in readers.items():
            if (value, look) in cached:
                continue
            epochs = max(node.recipe.epochs for node in by)
            times, closing = looks(augment, nodes[0].seed, epochs).get(look, (0, False))
            size, reads = max(1, count * sizes[value.point]), times + closing * CLOSINGS * len(by)
            steps = tuple(_steps(value, look, net, sizes, count, speeds, cached))
            every.append(CacheCandidate(value, look, size, reads, steps))
    return every


def _steps(
    value: FrozenValue,
    look: SplitView,
    net: ExitNetwork,
    sizes: Mapping[Point, int],
    count: int,
    speeds: Speeds,
    cached: Collection[ValueName],
) -> list[tuple[FrozenValue, float]]:
    """What computes `value` of `count` images, each step with its seconds, from the lowest up."""
    steps: list[tuple[FrozenValue, float]] = []
    for step in value.chain:
        if (step, look) in cached:
            steps.append((step, count * sizes[step.point] / speeds.memory))
            break
        if step.point == IMAGES:
            steps.append((step, count * math.prod(net.input_shape) / speeds.pixels))
            break
        part = step.point.part
        macs = 0 if part is None else net.macs(part)
        moved = MOVES * sizes[step.point]
        steps.append((step, count * (macs / speeds.macs + moved / speeds.memory)))
    return steps[::-1]


def seconds(
    values: Sequence[CacheCandidate], placed: Mapping[ValueName, Medium], speeds: Speeds
) -> float:
    """Seconds to make and read values that are placed so: a step runs for every pass in which a live
    value needs it, and once where it fills a cached one, which is written once and then read."""
    return sum(_look_seconds(members, placed, speeds) for members in _by_look(values).values())


def place(values: Sequence[CacheCandidate], room: Mapping[Medium, int], speeds: Speeds) -> Placed:
    """The place of every value that is worth one: those first that save most seconds a byte, in memory,
    then on disk.

    Values with layers in common are weighed together too, since a layer is spared only when nothing live
    needs it. It takes the better of the greedy choice and the one that begins with the largest saving.
    That is no optimum: values that save time only in a company that is not weighed are missed. Of 15,000
    small random trees and one place it saved 99.9 % of the most on average, all of it in 98.8 %, less
    than half in 0.06 %. room: bytes of each place.

    Returns:
        The place of each value that gets one.
    """
    placed: Placed = {}
    looks = _by_look(values)
    for medium in PLACES:
        every = (_offers(members, placed, medium, speeds) for members in looks.values())
        fitting = (offer for offers in every for offer in offers if offer.size <= room[medium])
        largest = max(fitting, key=lambda offer: offer.gain, default=None)
        if largest is None:
            continue
        begun = placed | dict.fromkeys(largest.names, medium)
        choices = (
            _greedy(looks, placed, medium, room[medium], speeds),
            _greedy(looks, begun, medium, room[medium] - largest.size, speeds),
        )
        placed = min(choices, key=lambda choice: seconds(values, choice, speeds))
    return placed


@dataclass(frozen=True)
class _Offer:
    """Values to place together, the seconds that saves and the bytes it takes."""

    names: tuple[ValueName, ...]
    size: int
    gain: float


def _greedy(
    looks: Mapping[SplitView, Sequence[CacheCandidate]],
    placed: Placed,
    medium: Medium,
    room: int,
    speeds: Speeds,
) -> Placed:
    placed = dict(placed)
    offers = {look: [*_offers(members, placed, medium, speeds)] for look, members in looks.items()}
    while True:
        open_ = [(offer, look) for look, some in offers.items() for offer in some if offer.size <= room]
        if not open_:
            return placed
        best, look = max(open_, key=lambda pair: pair[0].gain / pair[0].size)
        placed |= dict.fromkeys(best.names, medium)
        room -= best.size
        offers[look] = [*_offers(looks[look], placed, medium, speeds)]


def _offers(
    members: Sequence[CacheCandidate], placed: Placed, medium: Medium, speeds: Speeds
) -> Iterator[_Offer]:
    """What can be placed next of one look and saves time."""
    before = _look_seconds(members, placed, speeds)
    for bundle in _bundles([w for w in members if w.name not in placed]):
        names = tuple(w.name for w in bundle)
        gain = before - _look_seconds(members, placed | dict.fromkeys(names, medium), speeds)
        if gain > 0:
            yield _Offer(names, sum(w.size for w in bundle), gain)


def _bundles(live: Sequence[CacheCandidate]) -> list[tuple[CacheCandidate, ...]]:
    """Each live value alone, and for each step those that need it: all of them, only those nearest to
    it, and only those that are read at least so often."""
    bundles: dict[tuple[CacheCandidate, ...], None] = dict.fromkeys((value,) for value in live)
    for step in dict.fromkeys(step for candidate in live for step, _ in candidate.steps):
        need = [candidate for candidate in live if step in candidate.passed]
        values = {candidate.value for candidate in need}
        nearest = [w for w in need if not (w.passed - {w.value}) & values]
        often = ([w for w in need if w.reads >= least] for least in {w.reads for w in need})
        bundles |= dict.fromkeys(tuple(bundle) for bundle in (nearest, *often))
    return list(bundles)


def _look_seconds(
    members: Sequence[CacheCandidate], placed: Mapping[ValueName, Medium], speeds: Speeds
) -> float:
    cached = {w.value for w in members if w.name in placed}
    filled: set[FrozenValue] = set()  # steps that are run once to fill what is cached
    passes: dict[FrozenValue, int] = {}  # and those that are run for each pass over something live
    total = 0.0
    for member in members:
        if member.value in cached:
            total += (1 + member.reads) * member.size / speeds.of(placed[member.name])
            filled |= member.passed
            continue
        for step, _ in reversed(member.steps):
            if step in cached:
                break
            passes[step] = max(passes.get(step, 0), member.reads)
    each = {step: cost for member in members for step, cost in member.steps}
    return total + sum(cost * ((step in filled) + passes.get(step, 0)) for step, cost in each.items())


def _by_look(values: Sequence[CacheCandidate]) -> dict[SplitView, list[CacheCandidate]]:
    looks: dict[SplitView, list[CacheCandidate]] = {}
    for candidate in values:
        looks.setdefault(candidate.look, []).append(candidate)
    return looks
