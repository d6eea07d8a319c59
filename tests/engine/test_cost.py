"""Multiply-accumulates of phases and exits, against sums written out by hand."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from offramp.engine.cost import Work, exit_shares, saved_bytes, value_bytes, work
from offramp.engine.fit import split_logits
from offramp.engine.passes import Images
from offramp.engine.resolve import Node, Setting, resolve
from offramp.engine.settings import applied
from offramp.engine.values import Point
from offramp.nets import ExitNetwork, attach
from offramp.nets.network import exit_macs, inside, with_trunks
from offramp.parts import Part
from offramp.recipe import Recipe
from offramp.strategies import STRATEGIES
from support import CPU, NUMERICS, network, tiny_data

EPOCHS, TRAIN, VALIDATION = 5, 100, 20
CHECKS = EPOCHS * VALIDATION + TRAIN  # every epoch, and train once more in eval mode at the end


def nodes(strategy: str, epochs: int = EPOCHS, **options: Any) -> tuple[Node, ...]:
    setting = Setting({}, Recipe(epochs=epochs), NUMERICS, seed=42)
    return resolve(STRATEGIES[strategy](4, **options), network("digits-cnn"), setting).nodes


def cost(node: Node) -> Work:
    net = network("digits-cnn")
    return work(node, net, {"train": TRAIN, "validation": VALIDATION}, value_bytes(net))


def segments_macs(*which: int) -> int:
    return sum(network("digits-cnn").macs(Part("segment", i)) for i in which)


def heads_macs(*which: int) -> int:
    return sum(network("digits-cnn").macs(Part("head", k)) for k in which)


def live(macs: int) -> int:
    """Forward and backward (twice as much) over train, forward over what is checked."""
    return macs * (3 * EPOCHS * TRAIN + CHECKS)


def test_all_of_joint_training_is_live() -> None:
    (node,) = nodes("joint")
    expected = live(segments_macs(1, 2, 3, 4) + heads_macs(1, 2, 3, 4))
    assert cost(node) == Work(expected, expected, 0)


def test_frozen_layers_are_paid_for_once() -> None:
    node = nodes("branch-wise")[2]
    above = live(segments_macs(3) + heads_macs(3))
    below = segments_macs(1, 2)
    work = cost(node)
    assert work.written == above + below * (EPOCHS * TRAIN + CHECKS)
    assert work.executed == above + below * (TRAIN + VALIDATION)
    assert work.executed < work.written
    assert work.cache_bytes == value_bytes(network("digits-cnn"))[Point("tap", 2)] * (TRAIN + VALIDATION)


def test_one_epoch_caches_nothing() -> None:
    work = cost(nodes("branch-wise", epochs=1)[2])
    assert work.written == work.executed


def test_a_joint_phase_divides_over_its_exits_by_macs() -> None:
    """Each segment is charged to the first exit that needs it; nothing here is frozen."""
    (node,) = nodes("joint")
    total = segments_macs(1, 2, 3, 4) + heads_macs(1, 2, 3, 4)
    expected = {k: (segments_macs(k) + heads_macs(k)) / total for k in (1, 2, 3, 4)}
    assert exit_shares(node, network("digits-cnn")) == pytest.approx(expected)


def test_a_phase_of_one_exit_is_all_its_own() -> None:
    for node in (*nodes("two-stage"), *nodes("branch-wise"), *nodes("separate")):
        assert exit_shares(node, network("digits-cnn")) == {max(node.exits): 1.0}


def test_a_teacher_costs_a_forward_pass() -> None:
    student = cost(nodes("distillation")[1])
    without = cost(nodes("two-stage")[1])
    teacher = segments_macs(1, 2, 3, 4) + heads_macs(4)
    assert student.written - without.written == teacher * (EPOCHS * TRAIN + CHECKS)
    assert student.executed < student.written


def test_bytes_of_values_are_those_of_the_tensors() -> None:
    net = network.__wrapped__("digits-cnn")  # of its own: answering moves BatchNorm's statistics
    sizes = value_bytes(net)
    with torch.no_grad():
        tap = inside(net).segment(1)(torch.zeros(1, *net.input_shape))[0]
    assert sizes[Point("tap", 1)] == tap.numel() * 4
    assert sizes[Point("pooled", 1)] == inside(net).head_pool(1)(tap).numel() * 4
    assert sizes[Point("logits", 4)] == net.classes * 4


def test_an_exit_of_one_trunk_pays_for_the_heads_it_passed() -> None:
    net = network("digits-cnn")
    assert exit_macs(net, [1]) == segments_macs(1) + heads_macs(1)
    assert exit_macs(net, [1, 2]) == segments_macs(1, 2) + heads_macs(1, 2)
    assert exit_macs(net, [2]) == segments_macs(1, 2) + heads_macs(2)


def test_a_cascade_pays_for_every_trunk_it_passed() -> None:
    net = with_trunks(network("digits-cnn"), [0, 1, 2, 3])
    expected = segments_macs(1) + heads_macs(1) + segments_macs(1, 2) + heads_macs(2)
    assert exit_macs(net, [1, 2]) == expected


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("batch", [8, 64])
def test_logits_of_a_split_are_the_networks_own(own: bool, batch: int) -> None:
    net: ExitNetwork = copy.deepcopy(network("digits-cnn")).eval()
    if own:
        net = with_trunks(net, [0, 1, 2, 3])
        with torch.no_grad():
            for trunk in range(4):
                for parameter in inside(net).parameters_of(Part("segment", 1), trunk):
                    parameter.mul_(1 + trunk / 10)
    images = Images(tiny_data(), CPU)
    with applied(NUMERICS), torch.no_grad():
        logits = split_logits(net, images, "test", [1, 3, 4], batch)
        everything = net(images.read("test", torch.arange(images.count("test"))))
    assert logits.shape == (images.count("test"), 3, 3) and logits.dtype == np.float32
    for column, exit in enumerate((1, 3, 4)):
        assert np.allclose(logits[:, column], everything[exit - 1].numpy(), rtol=1e-4, atol=1e-5)


# What a step keeps for its backward pass


class Two(nn.Module):
    """A convolution whose map keeps its size, a rectifier, a mean and a line."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.line = nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.line(self.relu(self.conv(images)).mean((2, 3)))


def test_of_a_small_network_it_is_what_its_layers_keep() -> None:
    net = attach(Two(), exits=[], input_shape=(3, 6, 6))
    images, rectified, pooled = 3 * 36, 4 * 36, 4
    assert saved_bytes(net) == 4 * (images + rectified + pooled)


def test_it_leaves_network_and_random_state() -> None:
    net = network("digits-cnn")
    before, modes = torch.get_rng_state(), [m.training for m in net.modules()]
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    size = saved_bytes(net)
    assert size > 4 * 64 and size == saved_bytes(net)
    assert torch.equal(before, torch.get_rng_state())
    assert modes == [m.training for m in net.modules()]
    assert all(torch.equal(weights[name], tensor) for name, tensor in net.state_dict().items())
