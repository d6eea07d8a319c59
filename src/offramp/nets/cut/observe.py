"""What the operations of a traced module do when they run: shapes, work, aliases, random draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from offramp.device import random_state
from offramp.nets.macs import count_macs

_BATCHES = (2, 3)


@dataclass(frozen=True)
class Fact:
    """One operation, seen on a batch of two images and on a batch of three.

    shape: of its output without the batch `[...]`, where that is a floating tensor `[B, ...]`.
    tensor: whether the output is a tensor.
    value: what a later segment computes the output from when it is no tensor, see `scaled`.
    macs: multiply-accumulates for one image.
    random: it moved the global generator.
    untouched: the input whose very tensor it returns, unchanged (identity, dropout in eval mode).
    overwrites: the input whose very tensor it returns after writing on it (`relu_`).
    writes: storages that it wrote on; storage: the one its output lives in. Numbers of one run.
    """

    shape: tuple[int, ...] | None
    tensor: bool
    value: Any
    macs: int
    random: bool
    untouched: fx.Node | None
    overwrites: fx.Node | None
    writes: frozenset[int]
    storage: int | None


@dataclass(frozen=True)
class PerImage:
    """A whole number that is `factor` times the batch size."""

    factor: int


UNKNOWN = object()


def observe(
    graph: fx.Graph, module: nn.Module, batches: tuple[Tensor, Tensor]
) -> tuple[dict[fx.Node, Fact], Tensor]:
    """Facts on every operation, and the output on the first batch.

    graph: rooted on `module`, whose buffers the run updates as a forward pass does.
    batches: two and three images, `[2, C, H, W]` and `[3, C, H, W]`.
    """
    two, three = (_run(graph, module, x) for x in batches)
    count = len(batches[0])
    facts = {}
    for node, seen in two.items():
        a, b = seen.output, three[node].output
        facts[node] = Fact(
            shape=_per_image(a, b),
            tensor=isinstance(a, Tensor),
            value=UNKNOWN if isinstance(a, Tensor) else scaled(a, b),
            macs=round(seen.macs / count),
            random=seen.random or three[node].random,
            untouched=None if seen.writes else seen.returns,
            overwrites=seen.returns if seen.writes else None,
            writes=seen.writes,
            storage=_storage(a) if isinstance(a, Tensor) else None,
        )
    output = next(n for n in graph.nodes if n.op == "output")
    return facts, two[output].output


def scaled(two: Any, three: Any) -> Any:
    """The rule behind a value that is no tensor, from its values on two images and on three.

    A constant stays, a multiple of the batch size becomes `PerImage`, a tuple holds rules; anything
    else is `UNKNOWN`.
    """
    if isinstance(two, (tuple, list)) and isinstance(three, (tuple, list)):
        rules = tuple(scaled(a, b) for a, b in zip(two, three, strict=False))
        return rules if UNKNOWN not in rules and len(two) == len(three) else UNKNOWN
    if isinstance(two, (int, float, str, torch.dtype, type(None))) and two == three:
        return two
    if type(two) is int and type(three) is int and two % 2 == 0 and two // 2 * 3 == three:
        return PerImage(two // 2)
    if isinstance(two, torch.device):
        return two
    return UNKNOWN


@dataclass(frozen=True)
class _Seen:
    output: Any
    macs: int
    random: bool
    writes: frozenset[int]
    returns: fx.Node | None


def _run(graph: fx.Graph, module: nn.Module, x: Tensor) -> dict[fx.Node, _Seen]:
    # Every value is kept to the end, so that no two storages have the same address.
    machine = fx.Interpreter(module, garbage_collect_values=False, graph=graph)
    machine.args_iter = iter((x,))
    seen = {}
    for node in graph.nodes:
        read = [t for n in node.all_input_nodes for t in _tensors(machine.env[n])]
        versions = [t._version for t in read]
        before = random_state(x.device)
        output, macs = count_macs(partial(machine.run_node, node))
        machine.env[node] = output
        seen[node] = _Seen(
            output=output,
            macs=macs,
            random=not _equal(before, random_state(x.device)),
            writes=frozenset(
                _storage(t) for t, v in zip(read, versions, strict=True) if t._version != v
            ),
            returns=next((n for n in node.all_input_nodes if machine.env[n] is output), None)
            if isinstance(output, Tensor)
            else None,
        )
    return seen


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _per_image(two: Any, three: Any) -> tuple[int, ...] | None:
    """The shape without the batch, where both are floating tensors with the batch in front."""
    if not (isinstance(two, Tensor) and isinstance(three, Tensor) and two.is_floating_point()):
        return None
    batched = two.ndim > 1 and (two.shape[0], three.shape[0]) == _BATCHES
    return tuple(two.shape[1:]) if batched and two.shape[1:] == three.shape[1:] else None


def _equal(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
