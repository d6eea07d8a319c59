"""What a step keeps for its backward pass."""

from __future__ import annotations

import torch
from torch import nn

from offramp.engine.cost import saved_bytes
from offramp.nets import attach
from support import network


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
