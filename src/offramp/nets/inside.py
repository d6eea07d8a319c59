"""What an early-exit network is made of, and what its parts run: what trains and answers reads it.

Nothing of this is an attribute of `ExitNetwork`, where it would hide a part of the user's own network
that has the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, assert_never

from torch import Tensor, nn

from offramp.device import seeded, seeded_on_cpu
from offramp.errors import OfframpError
from offramp.hashing import derive
from offramp.inputs import Shape, is_square
from offramp.nets.clock import Clock
from offramp.nets.cut.partition import Segment, Trunk
from offramp.nets.heads import Head, HeadSpec, OwnHead, is_channels_last, new_head, through, zeros
from offramp.nets.inference import for_inference
from offramp.parts import Carry, Part, Parts

Make = Callable[[], nn.Module]
FromImages = Callable[[Tensor, Tensor, Tensor], Mapping[str, Tensor]]  # images, mean, std → weights


@dataclass(frozen=True)
class Exit:
    """One early exit.

    Attributes:
        place: Where it reads, by its name in the trunk.
        spec: What its head is made of.
        shape: Of its tap, without the batch.
    """

    place: str
    spec: HeadSpec | OwnHead
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """What its weights are named under."""
        return f"exits.{self.place}"


@dataclass(frozen=True)
class NetFacts:
    """What stays the same in every copy of a network."""

    early: tuple[Exit, ...]  # its early exits, in order
    classes: int  # how many logits each exit has
    input_shape: Shape  # (C, H, W) of one image
    identity: Mapping[str, Any]  # what the trunk is, as JSON-able data for keys; says nothing of exits
    # makes the trunk's module anew, drawing its weights from the generators of torch, NumPy or Python;
    # None for a module that came with its weights
    make: Make | None
    # multiply-accumulates of each part for one image, without what it adds of the answer before
    costs: Mapping[Part, int]
    initial: str | None = None  # what became of a checkpoint's weights for the trunk, in words
    reasons: tuple[str, ...] = ()  # why each early exit is where it is, in words
    # weights of the trunk that follow from training images, which it has not seen yet
    from_images: FromImages | None = None
    # of a network by name, the sections of a study file that give it
    as_study: Mapping[str, Any] | None = None
    carry: Carry = 0.0  # what each exit adds of the answer of the exit before to its head's logits
    attributes: str = ""  # of a module at hand, `attributes_digest` when exits were attached


@dataclass(frozen=True, eq=False)
class NetworkParts:
    """What is inside a network: `offramp.nets.network.inside`."""

    # cut alike, all of one clock, which decides what dropout and drop-path draw from
    trunks: tuple[Trunk, ...]
    trunk_of: tuple[int, ...]  # the number of the trunk that each exit runs
    heads: tuple[Head, ...]  # of the early exits
    facts: NetFacts  # what stays the same in every copy

    @property
    def exits(self) -> int:
        return len(self.trunk_of)

    @property
    def clock(self) -> Clock:
        return self.trunks[0].clock

    @property
    def carry(self) -> Carry:
        return self.facts.carry

    @property
    def head_specs(self) -> tuple[HeadSpec | OwnHead, ...]:
        return tuple(exit.spec for exit in self.facts.early)

    @cached_property
    def for_inference(self) -> NetworkParts:
        """These parts in eval mode, on the same tensors, as they answer sooner."""
        twins = [(trunk, for_inference(trunk.module)) for trunk in self.trunks]
        trunks = tuple(t if twin is t.module else replace(t, module=twin) for t, twin in twins)
        return replace(self, trunks=trunks, heads=tuple(for_inference(head) for head in self.heads))

    def segment(self, i: int, trunk: int = 0) -> Segment:
        """Segment i (1 … exits): tensors → tensors, the tap first."""
        return self.trunks[trunk].segments[i - 1]

    def head_pool(self, k: int) -> nn.Module:
        """The parameter-free stem of head k; the identity for the final exit."""
        return nn.Identity() if k == self.exits else self.heads[k - 1].pool

    def head_body(self, k: int, trunk: int = 0) -> Callable[..., Tensor]:
        """The rest of head k: what `head_pool(k)` returns → logits [B, classes]."""
        if k < self.exits:
            return self.heads[k - 1].body
        classifier = self.trunks[trunk].classifier
        return lambda *tensors: classifier(*tensors)[0]

    def with_features(self, k: int, trunk: int = 0) -> Callable[..., tuple[Tensor, Tensor]]:
        """The rest of head k, with features for losses that compare them.

        Returns:
            What `head_pool(k)` returns → its logits [B, classes], bit for bit those of `head_body`, and
            its features [B, `width(k)`].
        """
        # Features are what the last linear layer reads. Nobody says which that is in the final exit's
        # classifier: there they are what the classifier reads, averaged over the map or the tokens.
        if k == self.exits:
            classifier = self.head_body(k, trunk)
            return lambda *tensors: (classifier(*tensors), self._averaged(tensors[0]))
        *below, last = self.heads[k - 1].body.children()

        def run(pooled: Tensor) -> tuple[Tensor, Tensor]:
            features = pooled
            for module in below:
                features = module(features)
            return last(features), features

        return run

    def width(self, k: int) -> int:
        """How many features exit k has."""
        if k < self.exits:
            *_, last = self.heads[k - 1].body.children()
            assert isinstance(last, nn.Linear)  # whatever the kind of head: a rule for new kinds
            return last.in_features
        shape = self.trunks[0].shapes[-1]
        return next(n for dim, n in enumerate(shape, start=1) if dim not in self._positions)

    @property
    def _positions(self) -> tuple[int, ...]:
        """The dimensions over which what the final classifier reads, [B, …], is averaged."""
        shape = self.trunks[0].shapes[-1]
        if len(shape) == 2:
            return (1,)
        if len(shape) == 3 and is_channels_last(shape, is_square(self.facts.input_shape[1:])):
            return (1, 2)
        return tuple(range(2, len(shape) + 1))

    def _averaged(self, values: Tensor) -> Tensor:
        return values.mean(self._positions) if self._positions else values

    def path(self, k: int) -> tuple[Callable[..., Any], ...]:
        """What exit k runs, in order: segments 1 … k, the head's pool and its body."""
        trunk = self.trunk_of[k - 1]
        segments = (self.segment(i, trunk) for i in range(1, k + 1))
        return (*segments, self.head_pool(k), self.head_body(k, trunk))

    def answer(self, k: int, own: Tensor, before: Tensor | None) -> Tensor:
        """What exit k answers, [B, classes]: its head's logits `own`, and what it adds of `before`, the
        answer of the exit before it; None at the first."""
        if before is None or not self.carry:
            return own
        if not isinstance(self.carry, str):
            return own + self.carry * before
        adds = self.heads[k - 1].before if k < self.exits else None
        return own if adds is None else own + adds(before)

    def state(self, part: Part, trunk: int = 0) -> dict[str, Tensor]:
        """The live parameters and persistent buffers of a part, no copies, by the names in a store:
        segments and the final head by the original module's, head k by `exits.<place>.…`, where
        `state_dict` has `exit_heads.<place>.…`."""
        piece = self.piece(part, trunk)
        if isinstance(piece, Segment):
            return piece.state()
        return piece.state_dict(prefix=f"{self.facts.early[part.index - 1].name}.", keep_vars=True)

    def parameters_of(self, part: Part, trunk: int = 0) -> list[nn.Parameter]:
        """The parameters of a part."""
        return list(self.piece(part, trunk).parameters())

    def train_part(self, part: Part, mode: bool, trunk: int = 0) -> None:
        """Put one part in train or eval mode and leave the others as they are."""
        self.piece(part, trunk).train(mode)

    def train_parts(self, parts: Parts, trunk: int = 0) -> None:
        """Put these parts in train mode and leave the others as they are."""
        for part in sorted(parts):
            self.train_part(part, True, trunk)

    def modes(self, part: Part, trunk: int = 0) -> set[bool]:
        """Whether a part is in train mode."""
        return {self.piece(part, trunk).training}

    def parameter_count(self, part: Part) -> int:
        """Parameters (numbers, not tensors) of a part."""
        return sum(p.numel() for p in self.parameters_of(part))

    @property
    def gates(self) -> tuple[tuple[float, ...] | None, ...]:
        """The numbers of each exit's gate, the constant last; None where there is none, as at the final
        exit."""
        layers = (head.gate for head in self.heads)
        numbers = (
            None if gate is None else (*gate.weight[0].tolist(), *gate.bias.tolist()) for gate in layers
        )
        return (*numbers, None)

    def drawn_head(self, k: int, carry: Carry, seed: int, draw: str) -> dict[str, Tensor]:
        """The `state` of early head k, drawn anew, in a network with that `carry`."""
        exit = self.facts.early[k - 1]
        head = drawn_head(exit, self.facts.classes, self.clock, seed, draw)
        head.before = self.adds(k, carry, seed, draw)
        return head.state_dict(prefix=f"{exit.name}.")

    def drawn_trunk(self, seed: int, draw: str) -> dict[str, Tensor]:
        """The trunk's `state_dict`, drawn anew; as it is where it came with its weights.

        Raises OfframpError for weights that follow from training images.
        """
        if self.facts.from_images is not None:
            raise OfframpError(
                "the network's first weights follow from its training images, which are not here; "
                "train it by a study"
            )
        if self.facts.make is None:
            return self.trunks[0].module.state_dict()
        return drawn_module(self.facts.make, seed, draw).state_dict()

    @property
    def arrives_trained(self) -> bool:
        """Whether the trunk, classifier included, came with weights, so that its answers mean something
        before anything trains."""
        return not self.redrawable or bool(self.facts.identity.get("weights", {}).get("whole"))

    @property
    def redrawable(self) -> bool:
        """Whether the trunk has weights to draw; an attached module has only those it came with."""
        return self.facts.make is not None

    def adds(self, k: int, carry: Carry, seed: int, draw: str) -> nn.Module | None:
        """The layers that make of the answer before what early exit k adds of it: zeros at first. None
        where it has no such layers."""
        if k == 1 or not isinstance(carry, str):
            return None
        match carry:
            case "learned":
                return zeros(self.facts.classes, self.facts.classes, bias=False)
            case "hidden":
                with seeded(derive(seed, f"{self.facts.early[k - 1].name}.before", draw)):
                    return through(self.facts.classes, self.width(k))
            case _:
                assert_never(carry)

    def piece(self, part: Part, trunk: int) -> Segment | Head:
        """What `part` is: the head of an early exit, or a piece of a trunk, whose classifier is the last
        head."""
        match part.kind:
            case "segment":
                return self.segment(part.index, trunk)
            case "head" if part.index < self.exits:
                return self.heads[part.index - 1]
            case "head":
                return self.trunks[trunk].classifier
            case _:
                assert_never(part.kind)


def drawn_head(exit: Exit, classes: int, clock: Clock, seed: int, draw: str) -> Head:
    """A head whose weights are a function of (seed, draw, place). The global generator stays. Raises
    OfframpError for one that came with its network."""
    if isinstance(exit.spec, OwnHead):
        raise OfframpError(
            f"the exit at '{exit.place}' came with its network, and nobody knows how its weights are "
            "drawn; train the network in a loop (offramp.program), and adopt it then"
        )
    with seeded(derive(seed, exit.name, draw)):
        return new_head(exit.spec, exit.shape, classes, exit.name, clock)


def drawn_module(make: Make, seed: int, draw: str) -> nn.Module:
    """`make()`'s module, its weights a function of (seed, draw), whichever of torch, NumPy and Python
    draws them. The global generators stay put."""
    number = derive(seed, "backbone", draw)
    with seeded_on_cpu(number), seeded(number):
        return make()
