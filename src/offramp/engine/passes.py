"""What exits answer to a batch of a phase: as written, or from its cuts.

Both give the same bits. `Plain` runs the whole path of every exit each time and decides module by
module whether something trains; it derives nothing and is the oracle. `Derived` starts at the cuts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from offramp.augment import View
from offramp.engine.cache import Cache
from offramp.engine.cost import value_bytes
from offramp.engine.images import Images
from offramp.engine.placement import (
    PLACES,
    CacheCandidate,
    Medium,
    Speeds,
    SplitView,
    assumed,
    place,
    wanted,
)
from offramp.engine.resolve import Node
from offramp.engine.values import (
    IMAGES,
    Frozen,
    Point,
    Tensors,
    advance,
    compute,
    end,
    frozen_inputs,
    join,
    pad,
    reads_of,
    route,
    teacher_logits,
    union,
)
from offramp.engine.weights import Weights
from offramp.nets.network import ExitNetwork, inside

Logits = dict[int, Tensor]  # [B, classes] by exit


@dataclass(frozen=True)
class ExitAnswers:
    """What exits say of a batch. features: [B, D] of those whose features the loss reads."""

    logits: Logits
    features: dict[int, Tensor]


@dataclass(frozen=True)
class CacheBytes:
    """Bytes of the frozen values that a group reads again and again, by where they are.

    live: computed for every batch.  short: of these, what would be held if there were room.
    """

    memory: int = 0
    disk: int = 0
    live: int = 0
    short: int = 0


def carried(net: ExitNetwork, logits: Logits) -> Logits:
    """What exits answer, from their heads' logits: no gradient goes to the answer before."""
    for before, exit in pairwise(sorted(logits)):
        logits[exit] = inside(net).answer(exit, logits[exit], logits[before].detach())
    return logits


def answers(ends: Mapping[int, Tensors], net: ExitNetwork | None = None) -> ExitAnswers:
    """ends: by exit, the value at which its path ends.  net: whose exits add what they carry; None where
    each answers alone."""
    logits = {exit: value[0] for exit, value in ends.items()}
    return ExitAnswers(
        logits if net is None else carried(net, logits),
        {exit: value[1] for exit, value in ends.items() if len(value) > 1},
    )


class Pass(Protocol):
    """How the trainees of one group see the data. kept: where what they read again and again is."""

    kept: CacheBytes

    def reads(
        self, split: str, chunks: Sequence[Tensor], view: View | None, nodes: Sequence[Node]
    ) -> Iterator[Any]:
        """For each of `chunks` of rows, what `nodes` of the group read of them, each value once."""

    def answers(self, node: Node, net: ExitNetwork, read: Any) -> tuple[ExitAnswers, ExitAnswers]:
        """What the exits that the node's loss reads answer, and what those of its teacher do; of a live
        teacher both are the same object."""

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
        self.kept = CacheBytes()

    def reads(
        self,
        split: str,
        chunks: Sequence[Tensor],
        view: View | None,
        nodes: Sequence[Node],  # noqa: ARG002  # each of them walks from the images
    ) -> Iterator[Tensor]:
        return self._images.reads(split, chunks, view)

    def answers(self, node: Node, net: ExitNetwork, read: Tensor) -> tuple[ExitAnswers, ExitAnswers]:
        done: dict[Point, Tensors | list[Tensors]] = {
            IMAGES: [(piece,) for piece in pad(read, self._batch)]
        }
        mine = answers({k: self._walk(net, node, k, done, len(read)) for k in node.exits}, net)
        if node.phase.live:
            return mine, mine
        theirs: dict[int, Tensors] = {}
        for teacher, values in self._teachers[node.key]:
            for value in values:
                with torch.no_grad():
                    pieces = [
                        compute(teacher, {IMAGES: (piece,)}, value.point)
                        for piece in pad(read, self._batch)
                    ]
                theirs[value.point.index] = join(teacher, value.point, pieces, len(read))
                self._macs[node.key] += len(read) * sum(teacher.macs(part) for part in value.parts)
        return mine, answers(theirs)

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
    ) -> Tensors:
        """Point by point: padded and without gradient until something trains, then as it is."""
        last = end(node, exit)
        for point in route(exit, last):
            if point in done:
                continue
            value = done[point.before]
            if isinstance(value, list) and point.part not in node.trained:
                with torch.no_grad():
                    done[point] = [advance(net, point, piece) for piece in value]
                self._macs[node.key] += 0 if point.part is None else rows * net.macs(point.part)
            else:
                live = value if isinstance(value, tuple) else join(net, point.before, value, rows)
                done[point] = advance(net, point, live, scales=node.phase.scales)
        result = done[last]
        return join(net, last, result, rows) if isinstance(result, list) else result


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
        speeds: Speeds | None = None,
    ) -> None:
        """speeds: of this machine, which decide what is held; None goes by the kind of device."""
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
        self.kept = CacheBytes()
        if cache is not None and max(node.recipe.epochs for node in nodes) > 1:
            self.kept = self._hold(cache, nodes, speeds or assumed(images.device.type))

    def reads(
        self, split: str, chunks: Sequence[Tensor], view: View | None, nodes: Sequence[Node]
    ) -> Iterator[dict[Frozen, Tensors]]:
        asked = {value for node in nodes for value in reads_of(node)}
        nets = [(net, [value for value in values if value in asked]) for net, values in self._nets]
        for rows, images in self._with_images(asked, split, chunks, view):
            self._charge()
            self._ease(len(rows))
            known: dict[Frozen, Tensors] = {}
            for net, values in nets:
                live: list[Frozen] = []
                for value in values:
                    held = self._held(value, split, view)
                    if held is not None:
                        known[value] = tuple(t[self._images.ranks.slots(rows)] for t in held)
                    elif value.point == IMAGES:
                        assert images is not None
                        known[value] = (images,)
                    else:
                        live.append(value)
                known |= self._compute(net, live, split, rows, view, images)
            yield known

    def answers(
        self, node: Node, net: ExitNetwork, read: Mapping[Frozen, Tensors]
    ) -> tuple[ExitAnswers, ExitAnswers]:
        self._asking.add(node.key)
        inputs = self._inputs[node.key]
        known = {value.point: read[value] for value in inputs.values()}
        ends = {k: compute(net, known, end(node, k), scales=node.phase.scales) for k in node.exits}
        mine = answers(ends, net)
        if node.phase.live:
            return mine, mine
        return mine, answers({k: read[value] for k, value in self._teachers[node.key].items()})

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
        nearest: dict[Point, Tensors] = {}
        for value in values:
            for ancestor in value.chain:
                held = self._held(ancestor, split, view)
                if held is not None:
                    nearest[ancestor.point] = held
                    break
        for number, piece in enumerate(pad(rows, self._batch)):
            known: dict[Point, Tensors] = {
                point: tuple(t[self._images.ranks.slots(piece)] for t in held)
                for point, held in nearest.items()
            }
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
        return {v: join(net, v.point, [known[v.point] for known in pieces], len(rows)) for v in values}

    def _hold(self, cache: Cache, nodes: Sequence[Node], speeds: Speeds) -> CacheBytes:
        """Decide what is worth holding, and fill it in, look by look."""
        net = self._nets[0][0]
        read = partial(
            wanted,
            nodes,
            net,
            sizes=value_bytes(net),
            counts={split: len(self._own(split)) for split in ("train", "validation")},
            augment=self._images.augment,
            speeds=speeds,
        )
        asked = read(held=cache.names(self._batch))
        needed = {value for node in nodes for value in reads_of(node)}
        placed = place(asked, {kind: cache.room(kind, needed) for kind in PLACES}, speeds)
        for look in dict.fromkeys(one.look for one in asked):
            here = [one for one in asked if one.look == look and one.name in placed]
            self._fill(cache, look, {one.value: placed[one.name] for one in here}, needed)
        return self._kept(cache, read(held=()), speeds)

    def _kept(self, cache: Cache, every: Sequence[CacheCandidate], speeds: Speeds) -> CacheBytes:
        """Where everything is that recurs."""
        ideal = place(every, dict.fromkeys(PLACES, sum(one.size for one in every)), speeds)
        held = {one.name: cache.place((one.value, *one.look, self._batch)) for one in every}
        live = [one for one in every if held[one.name] is None]
        return CacheBytes(
            memory=sum(one.size for one in every if held[one.name] == "memory"),
            disk=sum(one.size for one in every if held[one.name] == "disk"),
            live=sum(one.size for one in live),
            short=sum(one.size for one in live if one.name in ideal),
        )

    def _fill(
        self, cache: Cache, look: SplitView, places: Mapping[Frozen, Medium], needed: set[Frozen]
    ) -> None:
        """Cache what frozen layers put out, all values of a network in one pass over the split."""
        split, view = look
        rows = self._own(split)
        count, chunks = len(rows), torch.split(rows, self._batch)
        for net, values in self._nets:
            missing = [value for value in values if value in places]
            rooms: dict[Frozen, Tensors] = {}
            if not missing:
                continue
            try:
                pieces = self._with_images(missing, split, chunks, view)
                for low, (piece, images) in zip(range(0, count, self._batch), pieces, strict=True):
                    found = self._compute(net, missing, split, piece, view, images)
                    if low == 0:
                        for value, like in found.items():
                            key = (value, split, view, self._batch)
                            room = cache.reserve(key, like, count, [places[value]], needed)
                            if room is not None:
                                rooms[value] = room
                        missing = list(rooms)
                    for value, room in rooms.items():
                        for target, source in zip(room, found[value], strict=True):
                            target[low : low + len(piece)] = source
                    self._ease(len(piece))
                    if not missing:
                        break
                for value in rooms:
                    cache.filled((value, split, view, self._batch))
            except BaseException:
                for value in rooms:
                    cache.drop((value, split, view, self._batch))
                raise

    def _own(self, split: str) -> Tensor:
        """The rows that are held here: with several ranks, each holds its own."""
        return self._images.ranks.own(self._images.count(split)).to(self._images.device)

    def _ease(self, rows: int) -> None:
        if self._cache is not None:
            self._cache.ease(rows)
