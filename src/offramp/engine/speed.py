"""How fast this machine trains this network, from one short measurement."""

from __future__ import annotations

from time import perf_counter

import torch

from offramp import device as devices
from offramp.engine.cost import BACKWARD
from offramp.engine.settings import applied, laid_out, placed
from offramp.inputs import noise
from offramp.nets.network import ExitNetwork
from offramp.numerics import Numerics
from offramp.parts import heads, segments

STEP_MACS = 30e9  # of a measured step, about: a large network is measured on a smaller batch
LEAST = 2  # images: what batch normalization needs


def macs_per_second(
    net: ExitNetwork,
    numerics: Numerics,
    device: torch.device,
    batch: int,
    repeats: int = 2,
    step_macs: float = STEP_MACS,
) -> float:
    """Training speed on noise images, the first step left out. An estimate for plans, never a result.
    batch: at most so many images a step; fewer, where a step would take more than `step_macs`."""
    parts = segments(1, net.exits) | heads(1, net.exits)
    each = (1 + BACKWARD) * sum(net.macs(part) for part in parts)
    batch = min(batch, max(LEAST, round(step_macs / each)))
    copy = net.copy()
    placed(copy, device, numerics.memory_format)
    copy.train()
    copy.requires_grad_(True)
    with applied(numerics):
        images = noise(net.input_shape, batch).to(device)
        images = laid_out(images, numerics.memory_format)
        times = []
        for _ in range(repeats + 1):
            devices.synchronize(device)
            began = perf_counter()
            torch.stack([logits.square().mean() for logits in copy(images)]).sum().backward()  # type: ignore[no-untyped-call]
            devices.synchronize(device)
            times.append(perf_counter() - began)
    return batch * each / min(times[1:])
