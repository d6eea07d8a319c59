"""The stages of a network as functions to call, compiled where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from offramp.errors import OfframpError
from offramp.nets.network import ExitNetwork, inside

Tensors = tuple[Tensor, ...]
SegmentCall = Callable[..., Tensors]
HeadCall = Callable[[Tensors, Tensor | None], Tensor]


@dataclass(frozen=True, eq=False)
class Stages:
    """What to run for some exits of a network.

    exits: their numbers, ascending.  trunks: the one that each of them reads.  segments: by (trunk,
    number): what crossed the cut before it → what crosses the next, [B, ...] each, the tap first.
    heads: one an exit: what crosses its cut, and the answer of the exit before, or None → its answer
    [B, classes], float32 at least.
    """

    exits: tuple[int, ...]
    trunks: tuple[int, ...]
    segments: dict[tuple[int, int], SegmentCall]
    heads: tuple[HeadCall, ...]


def stages(net: ExitNetwork, exits: Sequence[int], backend: str | None = None) -> Stages:
    """What `exits` of `net` run, in eval mode, on the network's own tensors.

    backend: of torch.compile, such as `inductor`; None runs eagerly. Each stage is compiled by itself
    when it is first called: for a single image, and once or twice for any other number of them. Raises
    OfframpError for a network that is in train mode, and for an unknown backend.
    """
    if _trains(net, exits):
        raise OfframpError("the network is in train mode, where answers are random; call net.eval()")
    check_backend(backend)
    own = inside(net)
    trunks = tuple(own.trunk_of[k - 1] for k in exits)
    needed = {(t, i) for k, t in zip(exits, trunks, strict=True) for i in range(1, k + 1)}
    segments: dict[tuple[int, int], SegmentCall] = {(t, i): own.segment(i, t) for t, i in sorted(needed)}
    if backend is not None:
        segments = {k: _compiled(own.segment(k[1], k[0]).as_module(), backend) for k in segments}
    heads = tuple(_head(net, k, t, backend) for k, t in zip(exits, trunks, strict=True))
    return Stages(tuple(exits), trunks, segments, heads)


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


def _head(net: ExitNetwork, k: int, trunk: int, backend: str | None) -> HeadCall:
    own = _own(net, k, trunk, backend)
    return lambda tensors, before: inside(net).answer(k, _wide(own(*tensors)), before)


def _wide(logits: Tensor) -> Tensor:
    """float32 at least, so that exits under autocast go into one tensor."""
    return logits.float() if logits.dtype.itemsize < 4 else logits


def _own(net: ExitNetwork, k: int, trunk: int, backend: str | None) -> Callable[..., Tensor]:
    if k == net.exits:
        if backend is None:
            return inside(net).head_body(k, trunk)
        classifier = _compiled(inside(net).trunks[trunk].classifier.as_module(), backend)
        return lambda *tensors: classifier(*tensors)[0]
    head = inside(net).heads[k - 1]
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
