"""What the operations of a graph do when they run: shapes, multiply-accumulates, aliases, random
draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from offramp.device import random_state

T = TypeVar("T")
_BATCHES = (2, 3)  # images in the two runs; of one image, a size 1 could be anything


@dataclass(frozen=True)
class Observed:
    """What one operation did, seen on a batch of two images and on a batch of three."""

    # of its output without the batch `[...]`, where that is a floating tensor `[B, ...]`
    shape: tuple[int, ...] | None
    tensor: bool  # whether the output is a tensor
    rule: Any  # what a later segment computes the output from when it is not a tensor, see `rule_of`
    macs: int  # multiply-accumulates for one image
    random: bool  # whether it moved the global generator
    # the input whose very tensor it returns, unchanged (identity, dropout in eval mode)
    untouched: fx.Node | None
    overwrites: fx.Node | None  # the input whose very tensor it returns after writing on it (`relu_`)
    writes: frozenset[int]  # storages that it wrote on. Numbers of one run
    storage: int | None  # the storage its output lives in
    rows: bool  # whether the output is a tensor with a row for each image
    # whether it is a tensor that sizes and constants alone decide, such as a causal mask: the same for
    # every batch, so it can be made again anywhere
    fixed: bool


@dataclass(frozen=True)
class PerImage:
    """A whole number that is `factor` times the batch size."""

    factor: int


UNKNOWN = object()


def observe(
    graph: fx.Graph, module: nn.Module, batches: tuple[Tensor, Tensor]
) -> tuple[dict[fx.Node, Observed], Tensor]:
    """Facts on every operation, and the output on the first batch.

    Args:
        graph: Rooted on `module`, whose buffers the run updates as a forward pass does.
        module: In the mode that the graph is of.
        batches: Two and three images, `[2, C, H, W]` and `[3, C, H, W]`.
    """
    two, three = (_run(graph, module, x) for x in batches)
    fixed = _fixed(two, three)
    facts = {}
    for node, run in two.items():
        a, b = run.output, three[node].output
        tensor = isinstance(a, Tensor)
        rows = tensor and a.ndim > 0 and (len(a), len(b)) == _BATCHES
        floating = rows and a.is_floating_point() and a.ndim > 1 and a.shape[1:] == b.shape[1:]
        facts[node] = Observed(
            shape=tuple(a.shape[1:]) if floating else None,
            tensor=tensor,
            rule=UNKNOWN if tensor else rule_of(a, b),
            macs=round(run.macs / len(batches[0])),
            random=run.random or three[node].random,
            untouched=None if run.writes else run.returns,
            overwrites=run.returns if run.writes else None,
            writes=run.writes,
            storage=_storage(a) if tensor else None,
            rows=rows,
            fixed=node in fixed,
        )
    output = next(n for n in graph.nodes if n.op == "output")
    return facts, two[output].output


@dataclass(frozen=True)
class _Run:
    """What one operation did on one batch."""

    output: Any
    macs: int
    random: bool
    writes: frozenset[int]
    returns: fx.Node | None


def _run(graph: fx.Graph, module: nn.Module, x: Tensor) -> dict[fx.Node, _Run]:
    # Every value stays to the end, so that no two storages have the same address.
    machine = fx.Interpreter(module, garbage_collect_values=False, graph=graph)
    machine.args_iter = iter((x,))
    runs = {}
    for node in graph.nodes:
        # An operation that writes on a tensor raises its version, also through a view of it.
        read = [t for n in node.all_input_nodes for t in _tensors(machine.env[n])]
        versions = [t._version for t in read]
        generator_state = random_state(x.device)
        output, macs = count_macs(partial(machine.run_node, node))
        machine.env[node] = output
        returned = (n for n in node.all_input_nodes if machine.env[n] is output)
        runs[node] = _Run(
            output=output,
            macs=macs,
            random=not all(map(torch.equal, generator_state, random_state(x.device))),
            writes=frozenset(
                _storage(t) for t, v in zip(read, versions, strict=True) if t._version != v
            ),
            returns=next(returned, None) if isinstance(output, Tensor) else None,
        )
    return runs


def _fixed(two: dict[fx.Node, _Run], three: dict[fx.Node, _Run]) -> set[fx.Node]:
    """The operations whose output sizes and constants alone decide; weights may train, and are none."""
    written = frozenset[int]().union(*(run.writes for run in two.values()))
    fixed = set[fx.Node]()

    def constant(node: fx.Node) -> bool:
        output = two[node].output
        if not isinstance(output, Tensor):
            return rule_of(output, three[node].output) is not UNKNOWN
        stored = node.op == "get_attr" and not isinstance(output, nn.Parameter)
        return node in fixed or (stored and _storage(output) not in written)

    for node, run in two.items():
        a, b = run.output, three[node].output
        if (
            node.op in ("call_function", "call_method")
            and isinstance(a, Tensor)
            and not (run.random or run.writes or _storage(a) in written)
            and all(map(constant, node.all_input_nodes))
            and torch.equal(a, b)
        ):
            fixed.add(node)
    return fixed


def rule_of(two: Any, three: Any) -> Any:
    """The rule behind a value that is not a tensor, from its values on two images and on three: a
    constant stays, a multiple of the batch size is `PerImage`, a tuple has rules, all else is
    `UNKNOWN`."""
    if isinstance(two, (tuple, list)) and isinstance(three, (tuple, list)):
        rules = tuple(rule_of(a, b) for a, b in zip(two, three, strict=False))
        return rules if UNKNOWN not in rules and len(two) == len(three) else UNKNOWN
    if isinstance(two, (int, float, str, torch.dtype, type(None))) and two == three:
        return two
    if type(two) is int and type(three) is int and two % 2 == 0 and two // 2 * 3 == three:
        return PerImage(two // 2)
    if isinstance(two, torch.device):
        return two
    return UNKNOWN


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for element in value:
            yield from _tensors(element)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


# Multiply-accumulates


def count_macs(run: Callable[[], T]) -> tuple[T, int]:
    """What `run()` returns, without gradients, and its multiply-accumulates: convolutions and matrix
    products, as papers count them."""
    # Normalization, activations, pooling and additions count nothing: for the convolutional networks
    # here they are a few per cent, and no two tools agree on them.
    counter = _Counter()
    with torch.no_grad(), _layer_by_layer(), counter:
        output = run()
    return output, counter.flops // 2


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up FLOPs by torch's formulas, as its FlopCounterMode does, but without it: that imports
    torch's compiler at the first operation, a second or more in every process."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # what would import the compiler
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        formula = _FORMULAS.get(getattr(func, "overloadpacket", func))
        if formula is None and hasattr(func, "decompose"):
            with self:  # what is composed of operations that have a formula
                output = func.decompose(*args, **named)
            if output is not NotImplemented:
                return output
        output = func(*args, **named)
        if formula is not None:
            self.flops += formula(*args, **named, out_val=output)
        return output


@contextmanager
def _layer_by_layer() -> Iterator[None]:
    """In eval mode torch runs its own encoder layers as one operation, for which it has no formula."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """FLOPs of one fused attention, of [B, heads, T, D]."""
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


def _recurrent(values: Tensor, *others: Any, **__: Any) -> int:
    """FLOPs of fused recurrent layers, of `[…, D]`: each weight counts once a step. others: matrices and
    biases come first, or in a list."""
    weights = others[0] if isinstance(others[0], (tuple, list)) else others[:2]
    size: int = sum(w.numel() for w in weights if w.ndim == 2)
    return 2 * values.shape[:-1].numel() * size


# What torch has no formulas for: the fused attention kernel of the CPU, recurrent layers in one piece.
_FUSED = {
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "mkldnn_rnn_layer": _recurrent,
    "_cudnn_rnn": _recurrent,
}
_FORMULAS = {**flop_registry, **{getattr(torch.ops.aten, name, None): f for name, f in _FUSED.items()}}
