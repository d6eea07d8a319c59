"""Logits for a batch of a phase: as written, or from its cuts.

Both give the same bits. `Plain` runs the whole path of every exit each time and decides module by
module whether something trains; it derives nothing and is the oracle. `Derived` starts at the cuts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from offramp.data import Data, normalize
from offramp.engine.cache import Cache
from offramp.engine.losses import balanced
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
from offramp.recipe import Recipe

Logits = dict[int, Tensor]  # [B, classes] by exit


class Pass(Protocol):
    """How the trainees of one group see the data."""

    def read(self, split: str, rows: Tensor) -> Any:
        """What all trainees share for these rows: read or computed once."""

    def logits(self, node: Node, net: ExitNetwork, read: Any) -> tuple[Logits, Logits]:
        """The exits that the node's loss reads, and its teacher's."""

    def take(self, key: str) -> float:
        """MACs of frozen layers that were run for a node since they were last asked for."""


class Images:
    """Normalized images of a split, by row numbers."""

    def __init__(self, data: Data, device: torch.device) -> None:
        self.device = device
        self._data = data.to(device)
        self._mean = torch.tensor(self._data.mean, device=device)
        self._std = torch.tensor(self._data.std, device=device)

    def count(self, split: str) -> int:
        return len(getattr(self._data, split).labels)

    def labels(self, split: str, rows: Tensor) -> Tensor:
        labels: Tensor = getattr(self._data, split).labels[rows]
        return labels

    def class_weights(self, recipe: Recipe) -> Tensor | None:
        """[C] float32 of the training labels, where the recipe asks for them."""
        return self._balanced if recipe.class_weights == "balanced" else None

    @cached_property
    def _balanced(self) -> Tensor:
        return balanced(self._data.train.labels, len(self._data.classes))

    def read(self, split: str, rows: Tensor) -> Tensor:
        """[B, C, H, W] float32, channels-last."""
        images = normalize(getattr(self._data, split).images[rows], self._mean, self._std)
        return images.contiguous(memory_format=torch.channels_last)


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

    def read(self, split: str, rows: Tensor) -> Tensor:
        return self._images.read(split, rows)

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
        again = any(node.recipe.epochs > 1 for node in nodes)
        if cache is not None and again:
            for split in ("train", "validation"):
                self._fill(split)

    def read(self, split: str, rows: Tensor) -> dict[Frozen, Tensors]:
        self._charge()
        known: dict[Frozen, Tensors] = {}
        images: Tensor | None = None
        for net, values in self._nets:
            live: list[Frozen] = []
            for value in values:
                held = self._held(value, split)
                if held is not None:
                    known[value] = tuple(t[rows] for t in held)
                elif value.point == IMAGES:
                    images = self._images.read(split, rows) if images is None else images
                    known[value] = (images,)
                else:
                    live.append(value)
            known |= self._compute(net, live, split, rows)
        return known

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

    def _held(self, value: Frozen, split: str) -> Tensors | None:
        return None if self._cache is None else self._cache.get((value, split, self._batch))

    def _compute(
        self, net: ExitNetwork, values: Sequence[Frozen], split: str, rows: Tensor
    ) -> dict[Frozen, Tensors]:
        """Frozen values for these rows, in full batches, from what is held of what they need."""
        if not values:
            return {}
        pieces: list[dict[Point, Tensors]] = []
        ancestors = union(a for value in values for a in value.chain)
        for piece in pad(rows, self._batch):
            known: dict[Point, Tensors] = {}
            for ancestor in ancestors:
                held = self._held(ancestor, split)
                if held is not None:
                    known[ancestor.point] = tuple(t[piece] for t in held)
            if any(_needs_images(value, known) for value in values):
                known[IMAGES] = (self._images.read(split, piece),)
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

    def _fill(self, split: str) -> None:
        """Cache what frozen layers put out, all values of a network in one pass over the split."""
        count = self._images.count(split)
        rows = torch.arange(count, device=self._images.device)
        for net, values in self._nets:
            missing = [v for v in values if v.point != IMAGES and self._held(v, split) is None]
            rooms: dict[Frozen, Tensors] = {}
            assert self._cache is not None
            try:
                for low in range(0, count, self._batch):
                    piece = rows[low : low + self._batch]
                    found = self._compute(net, missing, split, piece)
                    if low == 0:
                        missing, rooms = self._reserve(found, split, count)
                    for value, room in rooms.items():
                        for target, source in zip(room, found[value], strict=True):
                            target[low : low + len(piece)] = source
                for value in rooms:
                    self._cache.filled((value, split, self._batch))
            except BaseException:
                for value in rooms:
                    self._cache.drop((value, split, self._batch))
                raise

    def _reserve(
        self, found: Mapping[Frozen, Tensors], split: str, count: int
    ) -> tuple[list[Frozen], dict[Frozen, Tensors]]:
        assert self._cache is not None
        rooms: dict[Frozen, Tensors] = {}
        for value, like in found.items():
            room = self._cache.reserve((value, split, self._batch), like, count)
            if room is not None:
                rooms[value] = room
        return list(rooms), rooms


def _needs_images(value: Frozen, known: Iterable[Point]) -> bool:
    return not any(ancestor.point in known for ancestor in value.chain)
