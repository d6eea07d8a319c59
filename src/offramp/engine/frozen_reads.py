"""Which frozen values a group of phases reads, of which images, how often, and what computes them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from offramp.augment import Augment
from offramp.engine.placement import MOVES, CacheCandidate, Speeds, SplitView, ValueName
from offramp.engine.resolve import Node
from offramp.engine.values import IMAGES, Frozen, Point, frozen_inputs, teacher_logits, union
from offramp.nets.network import ExitNetwork

CLOSINGS = 2  # passes of a phase over train at its end: for its last and its best weights


def reads_of(node: Node) -> list[Frozen]:
    """The frozen values that a node's loss reads, the images among them where nothing is frozen."""
    return union([*frozen_inputs(node).values(), *teacher_logits(node).values()])


def reads_cached(node: Node) -> bool:
    """Whether a node's loss reads frozen values that may be held, and not images alone."""
    return any(value.point != IMAGES for value in reads_of(node))


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


def wanted(
    nodes: Sequence[Node],
    net: ExitNetwork,
    sizes: Mapping[Point, int],
    counts: Mapping[str, int],
    augment: Augment | None,
    speeds: Speeds,
    held: Collection[ValueName],
) -> list[CacheCandidate]:
    """What a group of nodes will read again and again, for `placement.place`.

    net: for its MACs.  sizes: bytes an image, of `cost.value_bytes`.  counts: images of `train` and
    `validation`.  held: what is there already; what is computed begins there.
    """
    readers: dict[Frozen, list[Node]] = {}
    for node in nodes:
        for value in reads_of(node):
            if value.point != IMAGES:
                readers.setdefault(value, []).append(node)
    longest = max(node.recipe.epochs for node in nodes)
    found = []
    for look in looks(augment, nodes[0].seed, longest):
        count = counts[look[0]]
        for value, by in readers.items():
            if (value, look) in held:
                continue
            epochs = max(node.recipe.epochs for node in by)
            times, closing = looks(augment, nodes[0].seed, epochs).get(look, (0, False))
            size, reads = max(1, count * sizes[value.point]), times + closing * CLOSINGS * len(by)
            steps = tuple(_steps(value, look, net, sizes, count, speeds, held))
            found.append(CacheCandidate(value, look, size, reads, steps))
    return found


def _steps(
    value: Frozen,
    look: SplitView,
    net: ExitNetwork,
    sizes: Mapping[Point, int],
    count: int,
    speeds: Speeds,
    held: Collection[ValueName],
) -> list[tuple[Frozen, float]]:
    """What computes `value` of `count` images, each step with its seconds, from the lowest up."""
    steps: list[tuple[Frozen, float]] = []
    for one in value.chain:
        if (one, look) in held:
            steps.append((one, count * sizes[one.point] / speeds.memory))
            break
        if one.point == IMAGES:
            steps.append((one, count * math.prod(net.input_shape) / speeds.pixels))
            break
        part = one.point.part
        macs = 0 if part is None else net.macs(part)
        moved = MOVES * sizes[one.point]
        steps.append((one, count * (macs / speeds.macs + moved / speeds.memory)))
    return steps[::-1]
