"""Multiply-accumulates of a computation: convolutions and matrix products, as papers count them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

T = TypeVar("T")


def count_macs(run: Callable[[], T]) -> tuple[T, int]:
    """What `run()` returns, without gradients, and its MACs.

    Normalization, activations, pooling and additions count nothing: for the convolutional networks
    here they are a few per cent, and no two tools agree on them.
    """
    counter = _Counter()
    with torch.no_grad(), _layer_by_layer(), counter:
        result = run()
    return result, counter.flops // 2


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
        if formula is None and isinstance(func, torch._ops.OpOverload):
            with self:  # what is made of operations that have a formula
                made = func.decompose(*args, **named)
            if made is not NotImplemented:
                return made
        made = func(*args, **named)
        if formula is not None:
            self.flops += formula(*args, **named, out_val=made)
        return made


@contextmanager
def _layer_by_layer() -> Iterator[None]:
    """In eval mode torch runs its own encoder layers as one operation, for which it has no formula."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> int:
    """FLOPs of one fused attention, of [B, heads, T, D]."""
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


# torch counts the fused attention kernels of CUDA but not the CPU's.
_FORMULAS = {**flop_registry, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
