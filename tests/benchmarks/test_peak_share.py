"""What is counted is what the network's own count says."""

import pytest
import torch
from benchmarks.peak_share import convolution_flops, flops_of, peaks
from benchmarks.step_by_hand import Case, network
from torch import nn

from offramp.parts import heads, segments
from support import CPU

TINY = Case("mobilenetv2", 32, batch=8, steps=2)


def test_a_steps_flops_are_six_a_mac_and_four_in_the_first_layer_less_zeros_of_padding() -> None:
    net = network(TINY)
    macs = sum(net.macs(part) for part in segments(1, net.exits) | heads(1, net.exits))
    padded = TINY.batch * (6 * macs - 2 * 32 * 3 * 3 * 3 * 16 * 16)
    assert 0.5 * padded < flops_of(TINY) < padded


def test_zeros_of_padding_are_not_counted() -> None:
    once = (2, 8, 1, 1), (16, 8, 3, 3), None, (1, 1), (1, 1), (1, 1)
    assert convolution_flops(*once) == 2 * 2 * 8 * 16
    plain = (2, 8, 5, 5), (16, 8, 3, 3), None, (2, 2), (0, 0), (1, 1)
    assert convolution_flops(*plain) == 2 * 2 * 8 * 16 * 9 * 4
    images = torch.ones(1, 1, 6, 5)
    for dilation in (1, 2):  # ones everywhere: the sum of all outputs counts the factors that are real
        settings = ((2, 1), (2, 1), (dilation, dilation))
        out = nn.functional.conv2d(images, torch.ones(1, 1, 3, 3), None, *settings)
        assert convolution_flops(images.shape, (1, 1, 3, 3), None, *settings) == 2 * int(out.sum())


@pytest.mark.long
def test_peaks_are_measured() -> None:
    assert min(peaks(CPU)) > 0
