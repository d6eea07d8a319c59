"""Where frozen values of whole splits are cached: in memory, on disk, or nowhere, computed live.

No result depends on it: a value is the same bits wherever it comes from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from offramp.augment import Augment, View
from offramp.engine.resolve import Node
from offramp.engine.values import IMAGES, FrozenValue, Point, reads_of

Medium = Literal["memory", "disk"]
PLACES: tuple[Medium, ...] = get_args(Medium)
SplitView = tuple[str, View | None]  # a split, and the random view of its images (None: as they are)
ValueName = tuple[FrozenValue, SplitView]
Placed = dict[ValueName, Medium]  # what is not in it stays live


CLOSINGS = 2  # passes of a phase over train at its end: for its last and its best weights


@dataclass(frozen=True)
class CacheCandidate:
    """A frozen value that phases are about to read, of all rows of a split."""

    value: FrozenValue
    look: SplitView
    size: int  # bytes
    reads: int  # passes over it

    @property
    def name(self) -> ValueName:
        return self.value, self.look


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
    sizes: Mapping[Point, int],
    counts: Mapping[str, int],
    augment: Augment | None,
    cached: Collection[ValueName],
) -> list[CacheCandidate]:
    """What a group of nodes will read again and again, for `place`. sizes: bytes an image; counts:
    images of `train` and `validation`; cached: what is in the cache already."""
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
            every.append(CacheCandidate(value, look, size, reads))
    return every


def place(values: Sequence[CacheCandidate], room: Mapping[Medium, int]) -> Placed:
    """The place of each value that is read again and fits, the deepest first, in memory before disk.
    room: bytes of each place."""
    left, placed = dict(room), Placed()
    again = [value for value in values if value.reads > 1]
    for candidate in sorted(again, key=lambda each: len(each.value.chain), reverse=True):
        medium = next((medium for medium in PLACES if candidate.size <= left[medium]), None)
        if medium is not None:
            placed[candidate.name] = medium
            left[medium] -= candidate.size
    return placed
