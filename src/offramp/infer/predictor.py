"""Answers for batches of images; those that have left cost nothing any more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from offramp.errors import OfframpError, kind_of
from offramp.nets.inside import NetworkParts
from offramp.nets.network import ExitNetwork, inside
from offramp.policy import scoring
from offramp.policy.policy import Policy, check_carry, check_classes
from offramp.study.trained import network_costs
from offramp.units import counted, percent

Tensors = tuple[Tensor, ...]
SegmentCall = Callable[..., Tensors]
HeadCall = Callable[[Tensors, Tensor | None], Tensor]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Answers for B images, on the predictor's device.

    Attributes:
        classes: [B] int64; of several labels an image [B, classes] bool, those that it has.
        confidence: [B], the largest softmax probability at the exit where the image left, with the
            policy's temperature, 0 to 1; NaN without a finite largest logit. Of several labels the
            probability of the least sure one's answer.
        exits: [B] int64, numbers of the network's exits, from 1. `Policy.leaves` counts from 0.
        compute: [B], MACs for the image as a share of the plain backbone's; above 1 if heads, or trunks,
            of earlier exits cost more than the image saves.
        logits: [B, classes] of that exit, float32 at least.

    Example:
        >>> prediction = fitted.predict(images[:3], policy)
        >>> prediction.logits.shape
        torch.Size([3, 10])
        >>> prediction
        Prediction of 3 images: ... at exit ...; on average ...% of the plain network's MACs
    """

    classes: Tensor
    confidence: Tensor
    exits: Tensor
    compute: Tensor
    logits: Tensor

    def __repr__(self) -> str:
        """How many images left at each exit; the tensors would be pages of numbers."""
        rows = torch.bincount(self.exits).tolist()
        left = ", ".join(f"{n:,} at exit {k}" for k, n in enumerate(rows) if n)
        mean = percent(float(self.compute.mean()))
        share = f"; on average {mean} of the plain network's MACs" if left else ""
        return f"Prediction of {counted(len(self.exits), 'image')}: {left or 'none'}{share}"


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows on their way from exit to exit."""

    left: Tensor | None  # [n], numbers of the rows that are still inside; None while all are
    logits: Tensor  # [B, classes] of the last exit that each has seen
    place: Tensor  # [B], its index


class Predictor:
    """A network and a policy: images [B, C, H, W], normalized as in training → `Prediction`.

    After each exit where images leave, the rest is packed together in the same memory layout and goes on
    alone. Heads at which the policy lets nothing leave are not run. On a GPU the host waits for
    whether the pixels are finite, and then once a stage: for which images stay, or with a single image
    for its logits.

    Example:
        >>> answer = offramp.predictor(fitted.net, policy)
        >>> answer(fitted.normalize(images[:3])).classes.shape
        torch.Size([3])
    """

    def __init__(self, net: ExitNetwork, policy: Policy, backend: str | None = None) -> None:
        """Get a network ready for a policy.

        Args:
            net: In eval mode; the predictor runs its own tensors, not copies.
            policy: Names exits of the network.
            backend: Of torch.compile, for each stage alone; None runs eagerly.

        Raises:
            OfframpError: The network lacks an exit of the policy, is in train mode, or the backend is
                unknown.
        """
        for exit in policy.exits:
            if exit > net.exits:
                raise OfframpError(
                    f"the policy names exit {exit} and the network has {net.exits}; "
                    "calibrate a policy for this network"
                )
        check_carry(policy, inside(net).carry, net.exits)
        check_classes(policy, net.classes)
        self.policy = policy
        self._net = net
        self._active = policy.active
        self._stages = stages(net, [policy.exits[i] for i in self._active], backend)
        costs = network_costs(net, list(inside(net).trunk_of), list(policy.exits))
        plain = net.plain_macs
        parameter = next(net.parameters())
        device, self._dtype = parameter.device, parameter.dtype
        shares = [spent / plain for spent in policy.macs(costs)]
        warmth = policy.temperatures or (1.0,) * len(policy.exits)
        # On the device once, so that no call has to send them there. Answers may share them: made in
        # inference mode, as the rest of an answer is, they cannot be changed in place outside of it.
        with torch.inference_mode():
            self._numbers = torch.tensor(policy.exits, device=device)
            self._shares = torch.tensor(shares, dtype=torch.float32, device=device)
            classes = torch.arange(net.classes if device.type == "cpu" else 0)
        self._places = list(
            zip(torch.split(self._numbers, 1), torch.split(self._shares, 1), strict=True)
        )
        few = len(classes) <= scoring.FEW and not policy.several
        self._classes = torch.split(classes, 1) if few else ()
        self._together = scoring.SCORES[policy.score].together  # exits answer by several heads' logits
        self._temperatures = warmth
        self._warmth = None if policy.temperatures is None else torch.tensor(warmth, device=device)

    @torch.inference_mode()
    def __call__(self, images: Tensor, forced: Tensor | None = None) -> Prediction:
        """Answer a batch.

        Args:
            images: [B, C, H, W] on the network's device, normalized; best in channels_last.
            forced: For measurements: [B] int64, the index into the policy's exits at which each image
                leaves whatever its score; scores are computed all the same.

        Raises:
            OfframpError: The images have another shape, or a type or device that the network does not
                take, or it was put in train mode since.
        """
        self._check(images)
        if forced is None:
            check_finite(images)
        try:
            return self._answered(images, forced)
        except RuntimeError as error:  # not before: some networks, and autocast, take other types
            if (images.device, images.dtype) == (self._numbers.device, self._dtype):
                raise
            raise OfframpError(
                f"the images are {images.dtype} on {images.device}, which the network does not take; "
                f"its weights are {self._dtype} on {self._numbers.device}"
            ) from error

    def _answered(self, images: Tensor, forced: Tensor | None) -> Prediction:
        if len(images) < 2:
            return self._single(images, forced) if len(images) else self._nothing()
        row = self._walk(images, forced)
        logits, place = row.logits, row.place
        warmth = 1.0 if self._warmth is None else self._warmth[place, None]
        several = self.policy.several
        sure = scoring.certainty(logits, cast(Any, warmth), several)
        return Prediction(
            scoring.answers(logits, several), sure, self._numbers[place], self._shares[place], logits
        )

    def _walk(self, images: Tensor, forced: Tensor | None) -> _Rows:
        reached: dict[int, tuple[int, Tensors]] = {}  # by trunk: the last tap, and what crosses there
        row: _Rows | None = None
        past: scoring.Past = None
        before: Tensor | None = None
        for step, at in enumerate(self._active):
            tensors = self._advance(reached, images, step)
            before = logits = self._stages.heads[step](tensors, before)
            threshold = self.policy.thresholds[at]
            if at == self._active[-1] and threshold is None:  # the network's final exit
                row = _seen(row, logits, at)
                break
            leaves, past = self._leaving(at, logits, past)
            row = _seen(row, scoring.answer_logits(self.policy.score, logits, past), at)
            if at == self._active[-1]:
                break
            if threshold is None:  # run for the sake of later exits, as patience does
                continue
            if forced is not None:
                leaves = (forced if row.left is None else forced[row.left]) == at
            stay = (~torch.as_tensor(leaves)).nonzero().squeeze(1)
            if not len(stay):
                break
            if len(stay) < len(leaves):
                row = _Rows(stay if row.left is None else row.left[stay], row.logits, row.place)
                later = self._stages.trunks[step + 1 :]
                reached = {
                    t: (i, self._packed(t, i, v, stay)) for t, (i, v) in reached.items() if t in later
                }
                images = images[stay] if any(t not in reached for t in later) else images
                past = None if past is None else tuple(each[stay] for each in past)
                before = before[stay]
        assert row is not None
        return row

    def _single(self, images: Tensor, forced: Tensor | None) -> Prediction:
        """The straight path: nothing is packed, and few numbers are looked at on the host."""
        reached: dict[int, tuple[int, Tensors]] = {}
        past: scoring.Past = None
        before: Tensor | None = None
        forced_at = None if forced is None else int(forced)
        for step, at in enumerate(self._active):
            tensors = self._advance(reached, images, step)
            before = seen = self._stages.heads[step](tensors, before)
            if at == self._active[-1] and not (self._together and self.policy.takes_all is not None):
                break
            leaves, past = self._leaving(at, _host(seen), past)
            if at == self._active[-1] or (bool(leaves[0]) if forced_at is None else forced_at == at):
                if self._together:
                    seen = scoring.answer_logits(self.policy.score, _host(seen), past).to(seen.device)
                break
        classes, sure = self._answer(seen, self._temperatures[at])
        return Prediction(classes, sure, *self._places[at], seen)

    def _answer(self, logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """The class [1] and its confidence [1] of one row [1, C], as `scoring` has them, up to rounding.
        With one kernel, but where the host would have to wait for the device."""
        few = scoring.row_answers(logits, temperature) if self._classes and logits.is_cpu else None
        if few is not None:
            ((number, sure),) = few
            return self._classes[number], logits.new_full((1,), sure)
        several = self.policy.several
        return scoring.answers(logits, several), scoring.certainty(logits, temperature, several)

    def _leaving(
        self, at: int, logits: Tensor, past: scoring.Past
    ) -> tuple[Tensor | list[bool], scoring.Past]:
        """Which of the rows [n, C] leave, n of them; at an exit without a threshold none. Few values on
        the host are looked at without a kernel: a loop is quicker."""
        threshold = self.policy.thresholds[at]
        if threshold is not None and logits.is_cpu:
            how = self._temperatures[at], threshold
            leaves = scoring.rows_leave(self.policy.score, logits, *how)
            if leaves is not None:
                return leaves, None
        gate = None if self.policy.gates is None else self.policy.gates[at]
        sure, past = scoring.score(self.policy.score, logits, self._temperatures[at], past, gate)
        return sure >= (math.inf if threshold is None else threshold), past

    def _advance(self, reached: dict[int, tuple[int, Tensors]], images: Tensor, step: int) -> Tensors:
        """What crosses the cut of an exit, from where its trunk has got to."""
        exit, trunk = self._stages.exits[step], self._stages.trunks[step]
        done, tensors = reached.get(trunk, (0, (images,)))
        for i in range(done + 1, exit + 1):
            tensors = tuple(self._stages.segments[trunk, i](*tensors))
        reached[trunk] = exit, tensors
        return tensors

    def _packed(self, trunk: int, segment: int, tensors: Tensors, stay: Tensor) -> Tensors:
        """The rows that stay of what a segment handed on; raises OfframpError where a tensor has no row
        an image. Indexing keeps channels_last, which index_select does not."""
        inside(self._net).trunks[trunk].check_rows(segment)
        return tuple(t[stay] for t in tensors)

    def _check(self, images: Tensor) -> None:
        shape = self._net.input_shape
        if not isinstance(images, Tensor):
            raise OfframpError(
                f"the images are {kind_of(images)}; give a torch.Tensor, or let fitted.predict take them"
            )
        if images.shape[1:] != shape:
            sizes = ", ".join(map(str, shape))
            raise OfframpError(
                f"the images are {list(images.shape)}; the network takes [B, {sizes}], normalized"
            )
        if self._net.training:
            raise OfframpError("the network is in train mode, where answers are random; call net.eval()")
        if not images.dtype.is_floating_point:
            raise OfframpError(f"the images are {images.dtype}; normalize them as in training first")
        if images.dtype == torch.float64 != self._dtype:
            raise OfframpError(f"the images are {images.dtype}; give {self._dtype}, as the network is")

    def _nothing(self) -> Prediction:
        none = self._numbers[:0]
        empty = self._shares[:0]
        logits = empty.new_empty(0, self._net.classes)
        classes = logits > 0 if self.policy.several else none
        return Prediction(classes, empty, none, empty, logits)


def check_finite(images: Tensor) -> None:
    """Raises OfframpError for NaN and infinity. The sum tells in one pass; where it is not finite, the
    images still may be."""
    if images.is_floating_point() and not math.isfinite(images.sum().item()):
        for at in (~images.isfinite()).nonzero()[:1, 0].tolist():
            raise OfframpError(f"image {at} has NaN or infinite values, which have no answer; mend it")


def _seen(row: _Rows | None, logits: Tensor, at: int) -> _Rows:
    """`row` after another exit, whose logits only the rows that are left have."""
    if row is None or row.left is None:
        return _Rows(None, logits, torch.full_like(logits[:, 0], at, dtype=torch.int64))
    left = row.left
    return _Rows(left, row.logits.index_copy(0, left, logits), row.place.index_fill(0, left, at))


def _host(logits: Tensor) -> Tensor:
    """On the CPU; the host waits for the device."""
    return logits if logits.is_cpu else logits.cpu()


@dataclass(frozen=True, eq=False)
class Stages:
    """What to run for some exits of a network."""

    exits: tuple[int, ...]  # their numbers, ascending
    trunks: tuple[int, ...]  # the one that each of them reads
    # by (trunk, number): what crossed the cut before it → what crosses the next, [B, ...] each, the tap
    # first
    segments: dict[tuple[int, int], SegmentCall]
    # one an exit: what crosses its cut, and the answer of the exit before, or None → its answer [B,
    # classes], float32 at least
    heads: tuple[HeadCall, ...]


def stages(net: ExitNetwork, exits: Sequence[int], backend: str | None = None) -> Stages:
    """What `exits` of `net` run, in eval mode, on the network's own tensors. With a backend of
    torch.compile each stage is compiled when it is first called. Raises OfframpError in train mode, and
    for no backend."""
    if _trains(net, exits):
        raise OfframpError("the network is in train mode, where answers are random; call net.eval()")
    check_backend(backend)
    own = running(net, backend)
    trunks = tuple(own.trunk_of[k - 1] for k in exits)
    needed = {(t, i) for k, t in zip(exits, trunks, strict=True) for i in range(1, k + 1)}
    segments: dict[tuple[int, int], SegmentCall] = {(t, i): own.segment(i, t) for t, i in sorted(needed)}
    if backend is not None:
        segments = {k: _compiled(own.segment(k[1], k[0]).as_module(), backend) for k in segments}
    heads = tuple(_head(own, k, t, backend) for k, t in zip(exits, trunks, strict=True))
    return Stages(tuple(exits), trunks, segments, heads)


def running(net: ExitNetwork, backend: str | None) -> NetworkParts:
    """The parts of `net` that answer: those that answer sooner, but where torch.compile takes them."""
    return inside(net).for_inference if backend is None else inside(net)


def check_backend(backend: str | None) -> None:
    """Raise OfframpError for a backend that torch.compile does not have."""
    if backend is not None and backend not in torch.compiler.list_backends(()):
        backends = ", ".join(torch.compiler.list_backends(()))
        raise OfframpError(f"torch has no compiler '{backend}'; choose from {backends}")


def _trains(net: ExitNetwork, exits: Sequence[int]) -> bool:
    """Whether a piece that these exits run is in train mode. A copied network's containers may say so
    of themselves, which means nothing."""
    own = inside(net)
    trunks = {own.trunk_of[k - 1]: k for k in exits}
    pieces = [own.segment(i, t) for t, last in trunks.items() for i in range(1, last + 1)]
    pieces += [own.trunks[t].classifier for t, last in trunks.items() if last == net.exits]
    heads = [own.heads[k - 1] for k in exits if k < net.exits]
    return any(piece.training for piece in pieces) or any(head.training for head in heads)


def _head(parts: NetworkParts, k: int, trunk: int, backend: str | None) -> HeadCall:
    own = _own(parts, k, trunk, backend)
    return lambda tensors, before: parts.answer(k, _wide(own(*tensors)), before)


def _wide(logits: Tensor) -> Tensor:
    """float32 at least, so that exits under autocast go into one tensor."""
    return logits.float() if logits.dtype.itemsize < 4 else logits


def _own(parts: NetworkParts, k: int, trunk: int, backend: str | None) -> Callable[..., Tensor]:
    if k == parts.exits:
        if backend is None:
            return parts.head_body(k, trunk)
        classifier = _compiled(parts.trunks[trunk].classifier.as_module(), backend)
        return lambda *tensors: classifier(*tensors)[0]
    head = parts.heads[k - 1]
    run: Callable[..., Any] = head
    if backend is not None:
        # torch.compile counts how often a function was compiled and gives up after eight. Heads share
        # the function of their class; a traced head has one of its own.
        run = _compiled(fx.symbolic_trace(head), backend)
    return lambda *tensors: run(tensors[0])


def _compiled(module: nn.Module, backend: str) -> Callable[..., Any]:
    """Compiled for any number of rows but one, which torch compiles apart."""
    compiled = torch.compile(module, backend=backend)

    def run(*tensors: Tensor) -> Any:
        for tensor in tensors:
            if len(tensor) > 1:
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return compiled(*tensors)

    return run
