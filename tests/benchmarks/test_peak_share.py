"""What is counted is what the network's own count says, and the words follow from the numbers."""

from __future__ import annotations

import pytest
import torch
from benchmarks.ledger import Ledger, Operation, convolution_flops
from benchmarks.peak_share import Peaks, Turn, note, operations_of, peaks, verdict
from benchmarks.step_by_hand import Case, network
from torch import nn

from offramp.parts import heads, segments
from support import CPU, NUMERICS

TINY = Case("mobilenetv2", 32, batch=8, steps=2)
HIGH = Peaks(product=90.0, convolution=100.0, memory=10.0)


def test_a_steps_flops_are_six_a_mac_and_four_in_the_first_layer() -> None:
    operations = operations_of(TINY, NUMERICS)
    net = network(TINY)
    macs = sum(net.macs(part) for part in segments(1, net.exits) | heads(1, net.exits))
    first = 32 * 3 * 3 * 3 * 16 * 16
    assert sum(o.padded_flops for o in operations) == TINY.batch * (6 * macs - 2 * first)
    assert 0 < sum(o.flops for o in operations) < sum(o.padded_flops for o in operations)
    kinds = {"dense convolution", "depthwise convolution", "matrix product", "BatchNorm", "optimizer"}
    assert {o.kind for o in operations} == kinds | {"other"}
    state = 4 * sum(
        p.numel() for p in net.parameters()
    )  # read: weight, momentum, gradient; written: two
    moved = sum(o.bytes for o in operations if o.kind == "optimizer")
    assert moved == pytest.approx(5 * state, rel=0.25)


def test_zeros_of_padding_are_counted_apart() -> None:
    once = (2, 8, 1, 1), (16, 8, 3, 3), (1, 1), (1, 1), (1, 1)
    assert convolution_flops(*once) == (2 * 2 * 8 * 16, 2 * 2 * 8 * 16 * 9)
    plain = (2, 8, 5, 5), (16, 8, 3, 3), (2, 2), (0, 0), (1, 1)
    assert convolution_flops(*plain) == (2 * 2 * 8 * 16 * 9 * 4,) * 2
    counted = 0
    images = torch.ones(1, 1, 6, 5)
    for dilation in (1, 2):  # ones everywhere: the sum of all outputs counts the factors that are real
        settings = ((2, 1), (2, 1), (dilation, dilation))
        out = nn.functional.conv2d(images, torch.ones(1, 1, 3, 3), None, *settings)
        counted = 2 * int(out.sum())
        assert convolution_flops(images.shape, (1, 1, 3, 3), *settings)[0] == counted


def test_bytes_are_what_goes_in_and_out_and_views_move_nothing() -> None:
    a, b = torch.ones(2, 100)
    with Ledger(CPU) as ledger:
        c = a + b
        c.view(10, 10)
        c.mul_(2)
    assert [o.bytes for o in ledger.operations] == [3 * 400, 2 * 400]


def test_the_words_say_what_bounds() -> None:
    computing = Operation("dense convolution", 0.6, 50, 60, 1)
    moving = Operation("BatchNorm", 0.2, 0, 0, 2)
    idle = Operation("other", 0.1, 0, 0, 0)
    said = verdict([computing, moving, idle], 1.0, HIGH)
    assert said.startswith("arithmetic (arithmetic 60 %, memory 20 %, ")
    assert "kernels that reach neither 10 %" in said and "what is between operations 10 %" in said
    assert verdict([moving], 0.2, HIGH).startswith("memory (memory 100 %")
    whole = note([computing, moving, idle], Turn(1.0, HIGH), 8)
    assert "60 % of peak if zeros of padding count" in whole
    assert "time: dense convolution 60 %, BatchNorm 20 %" in whole


def test_peaks_are_measured() -> None:
    found = peaks(CPU, side=64, far=2**14)
    assert min(found.product, found.convolution, found.memory) > 0
    assert found.arithmetic == max(found.product, found.convolution)
