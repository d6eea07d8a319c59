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
    SplitView,
    cache_candidates,
    place,
)
from offramp.engine.resolve import Node
from offramp.engine.values import (
    IMAGES,
    FrozenValue,
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
from offramp.phase import Phase

Logits = dict[int, Tensor]  # [B, classes] by exit


@dataclass(frozen=True)
class ExitAnswers:
    """What exits answer to a batch; `features` [B, D] are of those whose features the loss reads."""

    logits: Logits
    features: dict[int, Tensor]


@dataclass(frozen=True)
class CacheBytes:
    """Bytes of the frozen values that a group reads again and again, by where they are."""

    memory: int = 0  # in memory
    disk: int = 0  # in files
    live: int = 0  # computed for every batch
    short: int = 0  # of these, what would be cached if there were room


def carried(net: ExitNetwork, logits: Logits) -> Logits:
    """What exits answer, from their heads' logits: no gradient goes to the answer before."""
    for before, exit in pairwise(sorted(logits)):
        logits[exit] = inside(net).answer(exit, logits[exit], logits[before].detach())
    return logits


def answers(ends: Mapping[int, Tensors], net: ExitNetwork | None = None) -> ExitAnswers:
    """What exits answer, from the value at which the path of each ends; they add what those of `net`
    carry, or None."""
    logits = {exit: value[0] for exit, value in ends.items()}
    return ExitAnswers(
        logits if net is None else carried(net, logits),
        {exit: value[1] for exit, value in ends.items() if len(value) > 1},
    )


def answered(
    phase: Phase, net: ExitNetwork, values: dict[Point, Tensors], trunk: int = 0
) -> ExitAnswers:
    """What the exits that a phase's loss reads answer, from `values`, which grow by what is computed."""
    ends = {k: compute(net, values, end(phase.terms, k), trunk, phase.scales) for k in phase.exits}
    return answers(ends, net)


class Pass(Protocol):
    """How the trainees of one group see the data; `cached` is of what they read again and again."""

    cached: CacheBytes

    def reads(
        self, split: str, chunks: Sequence[Tensor], view: View | None, nodes: Sequence[Node]
    ) -> Iterator[Any]:
        """For each of `chunks` of rows, what `nodes` of the group read of them, each value once."""

    def answers(self, node: Node, net: ExitNetwork, read: Any) -> tuple[ExitAnswers, ExitAnswers]:
        """What the exits that the node's loss reads answer, and what those of its teacher do; of a live
        teacher both are the same object."""

    def take(self, key: str) -> float:
        """MACs of frozen layers that were run for a node since the last call."""


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
        self.cached = CacheBytes()

    def reads(
        self,
        split: str,
        chunks: Sequence[Tensor],
        view: View | None,
        nodes: Sequence[Node],  # noqa: ARG002  # each of them walks from the images
    ) -> Iterator[Tensor]:
        return self._images.reads(split, chunks, view)

    def answers(self, node: Node, net: ExitNetwork, read: Tensor) -> tuple[ExitAnswers, ExitAnswers]:
        batches = pad(read, self._batch)
        done: dict[Point, Tensors | list[Tensors]] = {IMAGES: [(batch,) for batch in batches]}
        mine = answers({k: self._walk(net, node, k, done, len(read)) for k in node.exits}, net)
        if node.phase.live:
            return mine, mine
        theirs: dict[int, Tensors] = {}
        for teacher, values in self._teachers[node.key]:
            for value in values:
                with torch.no_grad():
                    pieces = [compute(teacher, {IMAGES: (batch,)}, value.point) for batch in batches]
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
        last = end(node.terms, exit)
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
        value = done[last]
        return join(net, last, value, rows) if isinstance(value, list) else value


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
        self._nets = weights.frozen(union(value for node in nodes for value in reads_of(node)))
        self._below = {node.key: {a for v in reads_of(node) for a in v.chain} for node in nodes}
        self._ran: dict[FrozenValue, int] = {}  # MACs not charged to a node yet
        self._readers = set(self._inputs)  # the nodes that they were run for
        self._macs = dict.fromkeys(self._inputs, 0.0)
        self.cached = CacheBytes()
        # With one epoch nothing is read again, so filling a cache would only cost.
        if cache is not None and max(node.recipe.epochs for node in nodes) > 1:
            self.cached = self._hold(cache, nodes)

    def reads(
        self, split: str, chunks: Sequence[Tensor], view: View | None, nodes: Sequence[Node]
    ) -> Iterator[dict[FrozenValue, Tensors]]:
        needed = {value for node in nodes for value in reads_of(node)}
        nets = [(net, [value for value in values if value in needed]) for net, values in self._nets]
        for rows, images in self._with_images(needed, split, chunks, view):
            self._charge()
            self._ease(len(rows))
            read: dict[FrozenValue, Tensors] = {}
            for net, values in nets:
                live: list[FrozenValue] = []
                for value in values:
                    cached = self._cached(value, split, view)
                    if cached is not None:
                        read[value] = tuple(t[self._images.ranks.slots(rows)] for t in cached)
                    elif value.point == IMAGES:
                        assert images is not None
                        read[value] = (images,)
                    else:
                        live.append(value)
                read |= self._compute(net, live, split, rows, view, images)
            yield read

    def answers(
        self, node: Node, net: ExitNetwork, read: Mapping[FrozenValue, Tensors]
    ) -> tuple[ExitAnswers, ExitAnswers]:
        self._readers.add(node.key)
        inputs = self._inputs[node.key]
        values = {value.point: read[value] for value in inputs.values()}
        mine = answered(node.phase, net, values)
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
            readers = [key for key in self._readers if value in self._below[key]] or [*self._readers]
            for key in readers:
                self._macs[key] += macs / len(readers)
        self._ran.clear()
        self._readers.clear()

    def _cached(self, value: FrozenValue, split: str, view: View | None) -> Tensors | None:
        return None if self._cache is None else self._cache.get((value, split, view, self._batch))

    def _with_images(
        self, values: Iterable[FrozenValue], split: str, chunks: Sequence[Tensor], view: View | None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Each chunk with its images, where any of `values` is computed from them."""
        if all(any(self._cached(a, split, view) is not None for a in value.chain) for value in values):
            yield from ((rows, None) for rows in chunks)
        else:
            yield from zip(chunks, self._images.reads(split, chunks, view), strict=True)

    def _compute(
        self,
        net: ExitNetwork,
        values: Sequence[FrozenValue],
        split: str,
        rows: Tensor,
        view: View | None,
        images: Tensor | None,
    ) -> dict[FrozenValue, Tensors]:
        """Frozen values for these rows, in full batches, from what is cached of what they need."""
        if not values:
            return {}
        pieces: list[dict[Point, Tensors]] = []
        ancestors = union(a for value in values for a in value.chain)
        padded = None if images is None else pad(images, self._batch)
        nearest: dict[Point, Tensors] = {}
        for value in values:
            for ancestor in value.chain:
                cached = self._cached(ancestor, split, view)
                if cached is not None:
                    nearest[ancestor.point] = cached
                    break
        for number, batch in enumerate(pad(rows, self._batch)):
            slots = self._images.ranks.slots(batch)
            piece = {point: tuple(t[slots] for t in cached) for point, cached in nearest.items()}
            if padded is not None:
                piece[IMAGES] = (padded[number],)
            with torch.no_grad():
                for value in values:
                    compute(net, piece, value.point)
            pieces.append(piece)
        for value in ancestors:  # every piece has values at the same points
            part = value.point.part
            computed = value.point in pieces[0] and value.point not in {IMAGES, *nearest}
            if part is not None and computed:
                self._ran[value] = self._ran.get(value, 0) + len(rows) * net.macs(part)
        return {v: join(net, v.point, [piece[v.point] for piece in pieces], len(rows)) for v in values}

    def _hold(self, cache: Cache, nodes: Sequence[Node]) -> CacheBytes:
        """Decide what is worth caching, and fill it in, look by look."""
        candidates = partial(
            cache_candidates,
            nodes,
            sizes=value_bytes(self._nets[0][0]),
            counts={split: len(self._own(split)) for split in ("train", "validation")},
            augment=self._images.augment,
        )
        missing = candidates(cached=cache.names(self._batch))
        needed = {value for node in nodes for value in reads_of(node)}
        placed = place(missing, {medium: cache.room(medium, needed) for medium in PLACES})
        for look in dict.fromkeys(candidate.look for candidate in missing):
            here = [w for w in missing if w.look == look and w.name in placed]
            self._fill(cache, look, {w.value: placed[w.name] for w in here}, needed)
        return self._bytes(cache, candidates(cached=()))

    def _bytes(self, cache: Cache, every: Sequence[CacheCandidate]) -> CacheBytes:
        """Where everything is that recurs."""
        media = {w.name: cache.place((w.value, *w.look, self._batch)) for w in every}
        return CacheBytes(
            memory=sum(w.size for w in every if media[w.name] == "memory"),
            disk=sum(w.size for w in every if media[w.name] == "disk"),
            live=sum(w.size for w in every if media[w.name] is None),
            short=sum(w.size for w in every if media[w.name] is None and w.reads > 1),
        )

    def _fill(
        self,
        cache: Cache,
        look: SplitView,
        places: Mapping[FrozenValue, Medium],
        needed: set[FrozenValue],
    ) -> None:
        """Cache what frozen layers put out, all values of a network in one pass over the split."""
        split, view = look
        rows = self._own(split)
        count, chunks = len(rows), torch.split(rows, self._batch)
        for net, members in self._nets:
            missing = [value for value in members if value in places]
            rooms: dict[FrozenValue, Tensors] = {}
            if not missing:
                continue
            try:
                pieces = self._with_images(missing, split, chunks, view)
                for low, (piece, images) in zip(range(0, count, self._batch), pieces, strict=True):
                    values = self._compute(net, missing, split, piece, view, images)
                    if low == 0:
                        for value, like in values.items():
                            key = (value, split, view, self._batch)
                            room = cache.reserve(key, like, count, [places[value]], needed)
                            if room is not None:
                                rooms[value] = room
                        missing = list(rooms)
                    for value, room in rooms.items():
                        for target, source in zip(room, values[value], strict=True):
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
        """The rows that are cached here: with several ranks, each has its own."""
        return self._images.ranks.own(self._images.count(split)).to(self._images.device)

    def _ease(self, rows: int) -> None:
        if self._cache is not None:
            self._cache.ease(rows)
