"""What each operation of a computation multiplies, moves, and takes, as PyTorch hands them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from offramp import device as devices

aten = torch.ops.aten
PRODUCTS = (aten.mm.default, aten.addmm.default, aten.bmm.default)
KINDS = (
    "dense convolution",
    "depthwise convolution",
    "matrix product",
    "BatchNorm",
    "optimizer",
    "other",
)


@dataclass(frozen=True)
class Operation:
    """One operation that ran.

    kind: of KINDS; depthwise: an output reads one channel.  flops: two a multiply-accumulate; where a
    factor is a zero of padding, in padded_flops alone.  bytes: what it reads and writes if it does so
    once.
    """

    kind: str
    seconds: float
    flops: int
    padded_flops: int
    bytes: int


class Ledger(TorchDispatchMode):
    """Lists the operations that run while it is entered, forward and backward."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        devices.synchronize(self._device)
        began = perf_counter()
        result = func(*args, **(kwargs or {}))
        devices.synchronize(self._device)
        seconds = perf_counter() - began
        if not _is_view(func):
            flops, padded = _flops(func, args)
            moved = _moved(func, args, kwargs or {}, result)
            self.operations.append(Operation(_kind(func, args), seconds, flops, padded, moved))
        return result


def _is_view(func: Any) -> bool:
    """Whether what it returns is memory that was there before, and not written on."""
    aliases = [r.alias_info for r in func._schema.returns]
    return bool(aliases) and all(a is not None and not a.is_write for a in aliases)


def _kind(func: Any, args: Sequence[Any]) -> str:
    if func in (aten.convolution.default, aten.convolution_backward.default):
        weight = args[1] if func is aten.convolution.default else args[2]
        return "depthwise convolution" if weight.shape[1] == 1 else "dense convolution"
    if func in PRODUCTS:
        return "matrix product"
    if "batch_norm" in str(func):
        return "BatchNorm"
    return "optimizer" if "_fused_" in str(func) else "other"


def _flops(func: Any, args: Sequence[Any]) -> tuple[int, int]:
    """Of convolutions and matrix products: without and with the zeros of padding."""
    if func is aten.convolution.default:
        images, weight, _, *geometry = args[:6]
        return convolution_flops(images.shape, weight.shape, *geometry)
    if func is aten.convolution_backward.default:
        _, images, weight, _, *geometry = args[:7]
        passes = sum(args[-1][:2])  # the gradients of images and of weights, where they are asked for
        once, padded = convolution_flops(images.shape, weight.shape, *geometry)
        return passes * once, passes * padded
    if func in PRODUCTS[:2]:
        a, b = args[-2:]
        return (2 * a.shape[0] * a.shape[1] * b.shape[1],) * 2
    return 0, 0


def convolution_flops(
    images: Sequence[int],
    weight: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int]:
    """FLOPs of a convolution of images [B, C, H, W] by weights [out, C / groups, h, w]: without the
    factors that are zeros of padding, and with them."""
    each = 2 * images[0] * weight[0] * weight[1]
    real, padded = [], []
    for size, taps, s, p, d in zip(images[2:], weight[2:], stride, padding, dilation, strict=True):
        outputs = (size + 2 * p - d * (taps - 1) - 1) // s + 1
        inside = (0 <= o * s - p + t * d < size for o in range(outputs) for t in range(taps))
        real.append(sum(inside))
        padded.append(outputs * taps)
    return each * math.prod(real), each * math.prod(padded)


def _moved(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Bytes of what goes in and what comes out, each once; twice what is written in place."""
    if "empty" in str(func):
        return 0
    arguments = func._schema.arguments
    given = {a.name: value for a, value in zip(arguments, args, strict=False)} | kwargs
    written = [given.get(a.name) for a in arguments if a.alias_info and a.alias_info.is_write]
    distinct = _distinct((args, kwargs)) | _distinct(result)
    return sum(distinct.values()) + sum(_distinct(written).values())


def _distinct(values: Any) -> dict[int, int]:
    """Bytes of the tensors among `values`, by where they lie."""
    return {v.data_ptr(): v.nbytes for v in tree_leaves(values) if isinstance(v, Tensor) and v.numel()}
