"""No step waits for the device: what a host asks of it, value by value, does not grow with the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from fit_runs import begin, program_nodes
from torch.utils._python_dispatch import TorchDispatchMode

from offramp.device import moved
from offramp.engine.fit import fit
from offramp.engine.settings import applied
from support import NUMERICS

WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique", "equal")
"""Operations whose answer, or its size, the host must have before it goes on."""


class Asked(TorchDispatchMode):
    """How often the host waits for an answer of the device."""

    count = 0

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        name = function.overloadpacket.__name__
        own_mask = name == "index" and any(t is not None and t.dtype == torch.bool for t in args[1])
        self.count += name in WAITING or own_mask
        return function(*args, **(kwargs or {}))


def asked(strategy: str, batch_size: int, per_step: bool = False) -> tuple[int, int]:
    """How often an epoch of the first phase waits, and its steps."""
    node = program_nodes(strategy)[0]
    with applied(NUMERICS):
        trainee, passes, images = begin(node)
        steps = -(-images.count("train") // batch_size)
        with Asked() as mode:
            for _ in fit([trainee], passes, images, batch_size):
                break
            if per_step:
                for _ in range(steps):
                    trainee_loss = torch.zeros(1).item()
                    assert trainee_loss == 0
    return mode.count, steps


@pytest.mark.parametrize(
    "strategy",
    ["joint", "boosted", "gradient-equilibrium", "imta", "self-distillation", "confidence-gated"],
)
def test_an_epoch_waits_as_often_however_many_steps_it_has(strategy: str) -> None:
    (few, one), (many, several) = asked(strategy, 32), asked(strategy, 4)
    assert several >= 6 * one
    assert many <= few
    assert asked(strategy, 4, per_step=True)[0] - many == several  # a step that waits is seen


class Pinned:
    """A tensor of the CPU on its way to a GPU."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def pin_memory(self) -> Pinned:
        self.calls.append("pinned")
        return self

    def to(self, device: torch.device, non_blocking: bool = False) -> Pinned:
        self.calls.append((str(device), non_blocking))
        return self


def test_images_go_to_a_gpu_out_of_pinned_memory_while_the_host_goes_on() -> None:
    tensor: Any = Pinned()
    moved(tensor, torch.device("cuda", 1))
    assert tensor.calls == ["pinned", ("cuda:1", True)]
    images = torch.zeros(2)
    assert moved(images, torch.device("cpu")) is images
