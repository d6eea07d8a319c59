"""The tensors a network computes, by name, and the cut below which a phase trains nothing.

Along the path of exit k the values are: tap 0 (the images), tap 1 … tap k (what segments 1 … k put
out), the head's pooled input, and the logits, or where a loss reads them, logits with
features. All strategies, inference and costs speak of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, assert_never

import torch
from torch import Tensor

from offramp.engine.resolve import Lineage, Node, Source
from offramp.nets.network import ExitNetwork, inside
from offramp.parts import Part
from offramp.phase import Loss, featured

Tensors = tuple[Tensor, ...]  # a value: what crosses a cut; the first tensor is the tapped one


@dataclass(frozen=True)
class Point:
    """A value's place: `tap` i, or the `pooled` input or the `logits` of exit i, or its `features`,
    which are with the logits."""

    kind: Literal["tap", "pooled", "logits", "features"]
    index: int

    @property
    def part(self) -> Part | None:
        """The part that computes it from the point before; None where no parameter is involved."""
        match self.kind:
            case "tap":
                return Part("segment", self.index)
            case "pooled":
                return None
            case "logits" | "features":
                return Part("head", self.index)
            case _:
                assert_never(self.kind)

    @property
    def before(self) -> Point:
        """The point that it is computed from (not defined for tap 0)."""
        match self.kind:
            case "tap":
                return Point("tap", self.index - 1)
            case "pooled":
                return Point("tap", self.index)
            case "logits" | "features":
                return Point("pooled", self.index)
            case _:
                assert_never(self.kind)

    @property
    def is_last(self) -> bool:
        """Whether the path of its exit ends here."""
        return self.kind in ("logits", "features")


IMAGES = Point("tap", 0)
UNSCALED: Mapping[Part, float] = MappingProxyType({})


def route(exit: int, last: Point | None = None) -> tuple[Point, ...]:
    """The points of exit `exit` after the images, in order. last: None ends at the logits."""
    taps = (Point("tap", i) for i in range(1, exit + 1))
    return (*taps, Point("pooled", exit), last or Point("logits", exit))


def end(loss: Loss, exit: int) -> Point:
    """What a loss reads of an exit, of the network that trains or of its teacher."""
    return Point("features" if exit in featured(loss) else "logits", exit)


Scales = Mapping[Part, float]  # of the gradients that parts send back to what they read


def advance(
    net: ExitNetwork, point: Point, value: Tensors, trunk: int = 0, scales: Scales = UNSCALED
) -> Tensors:
    """The value at `point`, from the value at the point before it; logits and features are float32 in
    any case."""
    if point.part is not None and point.part in scales:
        value = tuple(sending_back(tensor, scales[point.part]) for tensor in value)
    own = inside(net)
    match point.kind:
        case "tap":
            return tuple(own.segment(point.index, trunk)(*value))
        case "pooled":  # the backbone's own classifier has no pool of ours
            return value if point.index == net.exits else (own.head_pool(point.index)(value[0]),)
        case "logits":
            return (own.head_body(point.index, trunk)(*value).float(),)
        case "features":
            logits, features = own.with_features(point.index, trunk)(*value)
            return logits.float(), features.float()
        case _:
            assert_never(point.kind)


def compute(
    net: ExitNetwork,
    values: dict[Point, Tensors],
    point: Point,
    trunk: int = 0,
    scales: Scales = UNSCALED,
) -> Tensors:
    """The value at `point`, from the nearest of `values`; what is computed on the way is added there."""
    if point not in values:
        before = compute(net, values, point.before, trunk, scales)
        values[point] = advance(net, point, before, trunk, scales)
    return values[point]


class _Scaled(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def sending_back(value: Tensor, factor: float) -> Tensor:
    """`value`, whose gradient goes on times `factor`; 0 spares the backward pass below."""
    if not value.requires_grad:
        return value
    apply: Any = _Scaled.apply  # has types since torch 2.15
    return value.detach() if factor == 0 else apply(value, factor)


def cut(node: Node, exit: int) -> Point:
    """The deepest point on the path of `exit` that no trained part touches."""
    for i in range(1, exit + 1):
        if Part("segment", i) in node.trained:
            return Point("tap", i - 1)
    return Point("pooled", exit) if Part("head", exit) in node.trained else end(node.terms, exit)


@dataclass(frozen=True)
class FrozenValue:
    """A value that stands still while a phase trains: its place and the weights that make it."""

    point: Point
    seed: int
    sources: Lineage  # of the parts from the input up to here

    @property
    def before(self) -> FrozenValue:
        passed = self.sources if self.point.part is None else self.sources[:-1]
        return FrozenValue(self.point.before, self.seed, passed)

    @property
    def chain(self) -> tuple[FrozenValue, ...]:
        """This value and all that it is computed from, the images last."""
        return (self,) if self.point == IMAGES else (self, *self.before.chain)

    @property
    def parts(self) -> dict[Part, Source]:
        """The parts below it, each with its source."""
        above = (v for v in self.chain if v.point != IMAGES)
        return {v.point.part: v.sources[-1] for v in above if v.point.part is not None}


def frozen_inputs(node: Node) -> dict[int, FrozenValue]:
    """For every exit that the node's loss reads: the frozen value at its cut."""
    inputs = {}
    for exit in node.exits:
        point = cut(node, exit)
        lineage = node.lineage(exit)
        passed = lineage if point.is_last else lineage[: point.index]
        inputs[exit] = FrozenValue(point, node.seed, passed)
    return inputs


def teacher_logits(node: Node) -> dict[int, FrozenValue]:
    """For every teacher exit that the node's loss reads: the frozen logits, with features where it reads
    them."""
    return {
        k: FrozenValue(end(node.terms, k), node.seed, sources) for k, sources in node.teacher.items()
    }


def reads_of(node: Node) -> list[FrozenValue]:
    """The frozen values that a node's loss reads, the images among them where nothing is frozen."""
    return union([*frozen_inputs(node).values(), *teacher_logits(node).values()])


def reads_cached(node: Node) -> bool:
    """Whether a node's loss reads frozen values that may be cached, and not images alone."""
    return any(value.point != IMAGES for value in reads_of(node))


def pad(rows: Tensor, batch: int) -> list[Tensor]:
    """`rows` [N, …] in pieces of exactly `batch`, the last one filled up with copies of its first row.

    Frozen parts always see full batches: kernels for few rows round differently.
    """
    pieces = list(torch.split(rows, batch))
    missing = batch - len(pieces[-1])
    if missing:
        last = pieces[-1]
        filler = last[:1].expand(missing, *last.shape[1:])
        filled = torch.cat([last, filler])
        if last.dim() == 4 and last.is_contiguous(memory_format=torch.channels_last):
            filled = filled.contiguous(memory_format=torch.channels_last)
        pieces[-1] = filled
    return pieces


def join(net: ExitNetwork, point: Point, pieces: Sequence[Tensors], rows: int) -> Tensors:
    """Pieces of the value at `point` back in one, without the padding.

    Raises OfframpError for a value that carries a tensor without a batch dimension across a cut.
    """
    if point.kind == "tap":
        inside(net).trunks[0].check_rows(point.index)  # all trunks are cut alike
    if len(pieces) == 1:
        return tuple(t[:rows] for t in pieces[0])
    return tuple(torch.cat(tensors)[:rows] for tensors in zip(*pieces, strict=True))


def union(values: Iterable[FrozenValue]) -> list[FrozenValue]:
    """The distinct values, in a stable order."""
    return list(dict.fromkeys(values))
