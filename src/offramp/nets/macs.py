"""Multiply-accumulates of a computation: convolutions and matrix products, as papers count them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

T = TypeVar("T")


def count_macs(run: Callable[[], T]) -> tuple[T, int]:
    """What `run()` returns, without gradients, and its MACs.

    Normalization, activations, pooling and additions count nothing: for the convolutional networks
    here they are a few per cent, and no two tools agree on them.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_ATTENTION)
    with torch.no_grad(), _layer_by_layer(), counter:
        result = run()
    return result, counter.get_total_flops() // 2


@contextmanager
def _layer_by_layer() -> Iterator[None]:
    """torch runs its own encoder layers, in eval mode, as one operation of which nobody counts the
    products."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _attention(
    query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    """FLOPs of one fused attention; shapes [B, heads, T, D]."""
    del out_shape
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


# torch counts the fused attention kernels of CUDA but not the CPU's.
_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
