"""Logits for a batch of a phase: as written, or from its cuts.

Both give the same bits. `Plain` runs the whole path of every exit each time and decides module by
module whether something trains; it derives nothing and is the oracle. `Derived` starts at the cuts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from offramp.augment import Augment, View
from offramp.engine.cache import Cache
from offramp.engine.images import Images
from offramp.engine.resolve import Node
from offramp.engine.values import (
    IMAGES,
    Frozen,
    Point,
    Tensors,
    advance,
    compute,
    frozen_inputs,
    join,
    pad,
    route,
    teacher_logits,
    union,
)
from offramp.engine.weights import Weights
from offramp.nets.network import ExitNetwork

Logits = dict[int, Tensor]  # [B, classes] by exit


class Pass(Protocol):
    """How the trainees of one group see the data."""

    def reads(self, split: str, chunks: Sequence[Tensor], view: View | None) -> Iterator[Any]:
        """For each of `chunks` of rows, what all trainees share of them: read or computed once."""

    def logits(self, node: Node, net: ExitNetwork, read: Any) -> tuple[Logits, Logits]:
        """The exits that the node's loss reads, and its teacher's."""

    def take(self, key: str) -> float:
        """MACs of frozen layers that were run for a node since they were last asked for."""


class Plain:
    """Every phase alone, every layer live, as the paper runs it."""

    def __init__(self, images: Images, nodes: Sequence[Node], weights: Weights, batch: int) -> None:
        self._images = images
        self._batch = batch
        teachers = [union(teacher_logits(node).values()) for node in nodes]
        self._teachers = {
            node.key: weights.frozen(values) for node, values in zip(nodes, teachers, strict=True)
        }
        self._macs = {node.key: 0 for node in nodes}

    def reads(self, split: str, chunks: Sequence[Tensor], view: View | None) -> Iterator[Tensor]:
        return self._images.reads(split, chunks, view)

    def logits(self, node: Node, net: ExitNetwork, read: Tensor) -> tuple[Logits, Logits]:
        done: dict[Point, Tensors | list[Tensors]] = {
            IMAGES: [(piece,) for piece in pad(read, self._batch)]
        }
        mine = {k: self._walk(net, node, k, done, len(read)) for k in node.exits}
        theirs: Logits = {}
        for teacher, values in self._teachers[node.key]:
            for value in values:
                with torch.no_grad():
                    pieces = [
                        compute(teacher, {IMAGES: (piece,)}, value.point)
                        for piece in pad(read, self._batch)
                    ]
                theirs[value.point.index] = join(pieces, len(read))[0]
                self._macs[node.key] += len(read) * sum(teacher.macs(part) for part in value.parts)
        return mine, theirs

    def take(self, key: str) -> float:
        macs, self._macs[key] = self._macs[key], 0
        return macs

    def _walk(
        self,
        net: ExitNetwork,
        node: Node,
        exit: int,
        done: dict[Point, Tensors | list[Tensors]],
        rows: int,
    ) -> Tensor:
        """Point by point: padded and without gradient until something trains, then as it is."""
        for point in route(exit):
            if point in done:
                continue
            value = done[point.before]
            if isinstance(value, list) and point.part not in node.trained:
                with torch.no_grad():
                    done[point] = [advance(net, point, piece) for piece in value]
                self._macs[node.key] += 0 if point.part is None else rows * net.macs(point.part)
            else:
                live = join(value, rows) if isinstance(value, list) else value
                done[point] = advance(net, point, live)
        result = done[Point("logits", exit)]
        return (join(result, rows) if isinstance(result, list) else result)[0]


class Derived:
    """Each exit from its cut: frozen values are computed once for the group, from caches where they
    fit, else live."""

    def __init__(
        self,
        images: Images,
        nodes: Sequence[Node],
        weights: Weights,
        batch: int,
        cache: Cache | None,
    ) -> None:
        self._images = images
        self._batch = batch
        self._cache = cache
        self._inputs = {node.key: frozen_inputs(node) for node in nodes}
        self._teachers = {node.key: teacher_logits(node) for node in nodes}
        everything = [*self._inputs.values(), *self._teachers.values()]
        wanted = union(value for values in everything for value in values.values())
        self._nets = weights.frozen(wanted)
        self._below = {
            key: {
                a for values in (inputs, self._teachers[key]) for v in values.values() for a in v.chain
            }
            for key, inputs in self._inputs.items()
        }
        self._ran: dict[Frozen, int] = {}  # MACs not charged to a node yet
        self._asking = set(self._inputs)  # the nodes that they were run for
        self._macs = dict.fromkeys(self._inputs, 0.0)
        longest = max(node.recipe.epochs for node in nodes)
        if cache is not None and longest > 1:
            for split, view in _recurring(images.augment, nodes[0].seed, longest):
                self._fill(split, view)

    def reads(
        self, split: str, chunks: Sequence[Tensor], view: View | None
    ) -> Iterator[dict[Frozen, Tensors]]:
        everything = [value for _, values in self._nets for value in values]
        for rows, images in self._with_images(everything, split, chunks, view):
            self._charge()
            known: dict[Frozen, Tensors] = {}
            for net, values in self._nets:
                live: list[Frozen] = []
                for value in values:
                    held = self._held(value, split, view)
                    if held is not None:
                        known[value] = tuple(t[rows] for t in held)
                    elif value.point == IMAGES:
                        assert images is not None
                        known[value] = (images,)
                    else:
                        live.append(value)
                known |= self._compute(net, live, split, rows, view, images)
            yield known

    def logits(
        self, node: Node, net: ExitNetwork, read: Mapping[Frozen, Tensors]
    ) -> tuple[Logits, Logits]:
        self._asking.add(node.key)
        inputs = self._inputs[node.key]
        known = {value.point: read[value] for value in inputs.values()}
        mine = {k: compute(net, known, Point("logits", k))[0] for k in node.exits}
        theirs = {k: read[value][0] for k, value in self._teachers[node.key].items()}
        return mine, theirs

    def take(self, key: str) -> float:
        self._charge()
        macs, self._macs[key] = self._macs[key], 0.0
        return macs

    def _charge(self) -> None:
        """Divide what was run over the nodes that it was run for."""
        for value, macs in self._ran.items():
            readers = [key for key in self._asking if value in self._below[key]] or [*self._asking]
            for key in readers:
                self._macs[key] += macs / len(readers)
        self._ran.clear()
        self._asking.clear()

    def _held(self, value: Frozen, split: str, view: View | None) -> Tensors | None:
        return None if self._cache is None else self._cache.get((value, split, view, self._batch))

    def _with_images(
        self, values: Iterable[Frozen], split: str, chunks: Sequence[Tensor], view: View | None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Each chunk with its images, where any of `values` is computed from them."""
        if all(any(self._held(a, split, view) is not None for a in value.chain) for value in values):
            yield from ((rows, None) for rows in chunks)
        else:
            yield from zip(chunks, self._images.reads(split, chunks, view), strict=True)

    def _compute(
        self,
        net: ExitNetwork,
        values: Sequence[Frozen],
        split: str,
        rows: Tensor,
        view: View | None,
        images: Tensor | None,
    ) -> dict[Frozen, Tensors]:
        """Frozen values for these rows, in full batches, from what is held of what they need."""
        if not values:
            return {}
        pieces: list[dict[Point, Tensors]] = []
        ancestors = union(a for value in values for a in value.chain)
        padded = None if images is None else pad(images, self._batch)
        for number, piece in enumerate(pad(rows, self._batch)):
            known: dict[Point, Tensors] = {}
            for ancestor in ancestors:
                held = self._held(ancestor, split, view)
                if held is not None:
                    known[ancestor.point] = tuple(t[piece] for t in held)
            if padded is not None:
                known[IMAGES] = (padded[number],)
            there = {IMAGES, *known}
            with torch.no_grad():
                for value in values:
                    compute(net, known, value.point)
            pieces.append(known)
        for value in ancestors:  # every piece found the same values there
            part = value.point.part
            if part is not None and value.point in known and value.point not in there:
                self._ran[value] = self._ran.get(value, 0) + len(rows) * net.macs(part)
        return {v: join([known[v.point] for known in pieces], len(rows)) for v in values}

    def _fill(self, split: str, view: View | None) -> None:
        """Cache what frozen layers put out, all values of a network in one pass over the split."""
        count = self._images.count(split)
        chunks = torch.split(torch.arange(count, device=self._images.device), self._batch)
        for net, values in self._nets:
            missing = [v for v in values if v.point != IMAGES and self._held(v, split, view) is None]
            rooms: dict[Frozen, Tensors] = {}
            assert self._cache is not None
            try:
                pieces = self._with_images(missing, split, chunks, view)
                for low, (piece, images) in zip(range(0, count, self._batch), pieces, strict=True):
                    found = self._compute(net, missing, split, piece, view, images)
                    if low == 0:
                        missing, rooms = self._reserve(found, (split, view), count)
                    for value, room in rooms.items():
                        for target, source in zip(room, found[value], strict=True):
                            target[low : low + len(piece)] = source
                    if not missing:
                        break
                for value in rooms:
                    self._cache.filled((value, split, view, self._batch))
            except BaseException:
                for value in rooms:
                    self._cache.drop((value, split, view, self._batch))
                raise

    def _reserve(
        self, found: Mapping[Frozen, Tensors], of: tuple[str, View | None], count: int
    ) -> tuple[list[Frozen], dict[Frozen, Tensors]]:
        assert self._cache is not None
        rooms: dict[Frozen, Tensors] = {}
        for value, like in found.items():
            room = self._cache.reserve((value, *of, self._batch), like, count)
            if room is not None:
                rooms[value] = room
        return list(rooms), rooms


def _recurring(augment: Augment | None, seed: int, epochs: int) -> list[tuple[str, View | None]]:
    """What is read more than once, the most often first. A view that is drawn anew each epoch is not;
    the training split as it is, is read at the end, by every phase of the group."""
    looks: list[tuple[str, View | None]] = [("train", None), ("validation", None)]
    if augment is None:
        return looks
    views = augment.distinct(epochs)
    again = range(views if views < epochs else 0)
    return [looks[1], *(("train", augment.view(seed, n)) for n in again), looks[0]]
