"""What is drawn for a network leaves the global generators as they were."""

from __future__ import annotations

import pytest
import torch
from network_kit import CLASSES
from torch import nn

from offramp.nets import NetSpec, attach, build
from offramp.nets.draws import seeded


class FakeCuda:
    """Two devices, each with a generator whose state is the seed it was given last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, initialized: bool) -> None:
        self.states = [torch.tensor([n]) for n in (11, 12)]
        for name, fake in {
            "is_initialized": lambda: initialized,
            "_is_in_bad_fork": lambda: False,
            "device_count": lambda: 2,
            "get_rng_state": self.read,
            "set_rng_state": self.write,
            "manual_seed_all": self.seed_all,
        }.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        self.reads = 0

    def read(self, device: int | torch.device) -> torch.Tensor:
        self.reads += 1
        return self.states[torch.device("cuda", device).index if isinstance(device, int) else 0]

    def write(self, state: torch.Tensor, device: int | torch.device) -> None:
        self.states[device if isinstance(device, int) else 0] = state

    def seed_all(self, seed: int) -> None:
        self.states = [torch.tensor([seed])] * 2

    @property
    def seeds(self) -> list[int]:
        return [int(state) for state in self.states]


def test_draws_put_the_generators_of_every_device_back(monkeypatch):
    cuda = FakeCuda(monkeypatch, initialized=True)
    with seeded(7):
        assert cuda.seeds == [7, 7]
    assert cuda.seeds == [11, 12]
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, CLASSES)
    )
    before = torch.get_rng_state()
    for make in (
        lambda: build(NetSpec("digits-cnn"), (1, 8, 8), CLASSES, seed=1).redrawn(2),
        lambda: attach(module, ["0"], (1, 8, 8)),
    ):
        make()
        assert cuda.seeds == [11, 12]
        assert torch.equal(torch.get_rng_state(), before)


def test_draws_do_not_start_cuda(monkeypatch):
    cuda = FakeCuda(monkeypatch, initialized=False)
    with seeded(7):
        one = torch.rand(3)
    assert cuda.reads == 0
    with seeded(7):
        assert torch.equal(torch.rand(3), one)
    with seeded(8):
        assert not torch.equal(torch.rand(3), one)
