"""Batch normalization by the statistics of the whole batch, whichever ranks hold its rows."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from offramp.engine.ranks import BatchShare, Ranks

# What `F.batch_norm` calls; a network that torch.export has traced calls it by itself.
_ATEN = (torch.batch_norm, torch.ops.aten.batch_norm.default)


def normalizing(ranks: Ranks, share: BatchShare) -> AbstractContextManager[object]:
    """`GlobalBatchNorm` for a step on such a share of a batch; with one rank its rows are the batch."""
    return nullcontext() if ranks.count == 1 else GlobalBatchNorm(ranks, share)


class GlobalBatchNorm(TorchFunctionMode):
    """While it is entered, whatever normalizes by a batch's own statistics, module or function, takes
    those of all ranks' rows.

    Two sums a layer: forward, and of its gradient. Every rank must run the same operations in the same
    order.

    Args:
        share: This rank's part of the batch.
    """

    def __init__(self, ranks: Ranks, share: BatchShare) -> None:
        super().__init__()
        self._ranks, self._share = ranks, share

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            return self._normalized(*args, **(kwargs or {}))
        if func in _ATEN:
            return self._of_aten(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _of_aten(
        self,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
        cudnn_enabled: bool,  # noqa: ARG002
    ) -> Any:
        """As `torch.batch_norm`."""
        return self._normalized(input, running_mean, running_var, weight, bias, training, momentum, eps)

    def _normalized(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """As `torch.nn.functional.batch_norm`, which also says the arguments."""
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        spatial = math.prod(input.shape[2:])
        total = self._share.total * spatial
        if total <= 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got {total}")
        with torch.no_grad():
            mean, variance = self._statistics(input)
            if running_mean is not None and running_var is not None:
                running_mean.lerp_(mean.to(running_mean), momentum)
                running_var.lerp_((variance * (total / (total - 1))).to(running_var), momentum)
        # The statistics are gathered in float64, and applied in what a single device applies.
        kind = torch.promote_types(input.dtype, torch.float32)
        statistics = (mean.to(kind), variance.to(kind), eps, total)
        apply: Any = _Normalized.apply  # has types since torch 2.15
        normalized: Tensor = apply(input, weight, bias, *statistics, self._share.idle, self._ranks)
        return normalized

    def _statistics(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and (biased) variance of each channel over all ranks' rows, [C] float64: parts are put
        together as Chan, Golub and LeVeque (1983) do, which loses no digits to large means."""
        variance, mean = torch.var_mean(_wide(input), _all_but_channels(input), correction=0)
        parts = self._ranks.gather(torch.stack([mean, variance]).double())
        share = [count / self._share.total for count in self._share.counts]
        center = sum(part[0] * weight for part, weight in zip(parts, share, strict=True))
        spread = sum(
            (part[1] + (part[0] - center) ** 2) * weight
            for part, weight in zip(parts, share, strict=True)
        )
        assert isinstance(center, Tensor) and isinstance(spread, Tensor)
        return center, spread


class _Normalized(torch.autograd.Function):
    """The gradient of a batch's normalization reaches every row through the statistics, so its two sums
    are of all ranks too. Gradients of weight and bias are this rank's alone, as those of any layer."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        total: int,
        idle: bool,
        ranks: Ranks,
    ) -> Tensor:
        ctx.save_for_backward(input, weight, mean, torch.rsqrt(variance + eps))
        ctx.total, ctx.idle, ctx.ranks = total, idle, ranks
        return F.batch_norm(input, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, inverse = ctx.saved_tensors
        over = _all_but_channels(input)
        gradient = _wide(gradients[0])
        scaled = (_wide(input) - _across(mean, input)) * _across(inverse, input)
        of_bias = gradient.sum(over)
        of_weight = (gradient * scaled).sum(over)
        summed = ctx.ranks.sum(torch.stack([of_bias, of_weight])) / ctx.total
        shift, slope = (_across(part, input) for part in summed)
        factor = inverse if weight is None else inverse * weight
        of_input = (gradient - shift - scaled * slope) * _across(factor, input)
        if ctx.idle:
            of_input = torch.zeros_like(of_input)
        affine = (of_weight, of_bias) if weight is not None else (None, None)
        rest = (None,) * 6
        return (of_input.to(input.dtype), *affine, *rest)


def _wide(values: Tensor) -> Tensor:
    """In float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _all_but_channels(input: Tensor) -> list[int]:
    return [dim for dim in range(input.dim()) if dim != 1]


def _across(channels: Tensor, like: Tensor) -> Tensor:
    """[C] for an operation with [B, C, …]."""
    return channels.view(1, -1, *(1,) * (like.dim() - 2))
