"""How near a joint training step comes to what this machine can do.

A step of the engine is timed in turns with this machine's peaks, in one process and with the settings of
a run. Counted are convolutions and matrix products of the same step by hand, forward and backward: 6
FLOPs for each multiply-accumulate of the forward pass, 4 in the first layer, whose images need no
gradient. Where a factor is a zero of padding there is no work: on the 1×1 maps that small images end
in, that is eight ninths of a 3×3 convolution. The ratio is the share of the higher of both peaks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import step_by_hand as hand
from benchmarks.contest import BARE, Result, contender, middle
from benchmarks.step import CASES, way
from benchmarks.step_by_hand import Case
from offramp import device as devices


def measure(quick: bool) -> Iterator[Result]:
    """The share of peak of each network."""
    with contender(timer, BARE) as timing:
        for case in (replace(c, steps=max(1, c.steps // 2)) if quick else c for c in CASES):
            flops = flops_of(case)
            timing(case)  # warms up
            turns = [timing(case) for _ in range(2 if quick else 5)]
            shares = [flops / seconds / max(peaks) for seconds, *peaks in turns]
            took, product, convolution = (median(each) for each in zip(*turns, strict=True))
            note = f"batch {case.batch}, {1000 * took:.0f} ms: {flops / took / 1e9:.0f} GFLOP/s (peaks: "
            note += f"convolution {convolution / 1e9:.0f}, matrix product {product / 1e9:.0f})"
            yield middle(f"share of peak: {case.name}", shares, better="higher", note=note)


def timer() -> Callable[[Case], tuple[float, float, float]]:
    """For a contender: seconds of a step of the engine, then the peaks of a matrix product and of a
    convolution in FLOP/s, float32, in the settings that it left in force."""
    epochs = way("engine")
    return lambda case: (epochs(case).seconds, *peaks(devices.chosen()))


def flops_of(case: Case) -> int:
    """Of a step by hand, without zeros of padding. Counted on shapes alone."""
    model = hand.by_hand(case).to("meta")
    images = torch.empty(case.batch, 3, case.pixels, case.pixels, device="meta")
    labels = torch.empty(case.batch, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        hand.joint_loss(model(images), labels).backward()
    return counter.get_total_flops()


def convolution_flops(images: Sequence[int], weight: Sequence[int], *rest: Any, **_: Any) -> int:
    """FLOPs of a convolution of images [B, C, H, W] by weights [out, C / groups, h, w], without the
    factors that are zeros of padding. rest: the operator's bias, stride, padding, dilation and more."""
    inside = []
    for size, taps, s, p, d in zip(images[2:], weight[2:], *rest[1:4], strict=True):
        outputs = (size + 2 * p - d * (taps - 1) - 1) // s + 1
        inside.append(sum(0 <= o * s - p + t * d < size for o in range(outputs) for t in range(taps)))
    return 2 * images[0] * weight[0] * weight[1] * math.prod(inside)


def _backward_flops(*operands: Any, **_: Any) -> int:
    gradients = sum(operands[-1][:2])  # the gradients of images and of weights
    return gradients * convolution_flops(*operands[1:])


FORMULAS = {
    torch.ops.aten.convolution: convolution_flops,
    torch.ops.aten.convolution_backward: _backward_flops,
}


@torch.no_grad()
def peaks(device: torch.device) -> tuple[float, float]:
    """FLOP/s of a product of two square matrices, and of a 3×3 convolution, channels-last; its image is
    wider by its border, so that no factor is a zero of padding."""
    side, batch, channels, pixels = 2048, 32, 256, 14
    a, b = torch.randn(2, side, side, device=device)
    images = torch.randn(batch, channels, pixels + 2, pixels + 2, device=device)
    weight = torch.randn(channels, channels, 3, 3, device=device)
    images, weight = (t.contiguous(memory_format=torch.channels_last) for t in (images, weight))
    product = 2 * side**3 / _fastest(lambda: torch.mm(a, b))
    work = 2 * batch * (channels * pixels * 3) ** 2
    return product, work / _fastest(lambda: F.conv2d(images, weight))


def _fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of six tries; the first warms up."""
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return min(timer.timeit(1).mean for _ in range(6))
