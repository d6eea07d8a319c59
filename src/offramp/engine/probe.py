"""One training step on noise, timed: for plans and for choosing a memory layout, never a result."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import get_args

import torch

from offramp import device as devices
from offramp.engine.cost import step_macs as of_step
from offramp.engine.settings import applied, laid_out, placed
from offramp.files import read_cached, user_cache, write_cached
from offramp.hashing import digest
from offramp.inputs import noise
from offramp.nets import ExitNetwork
from offramp.numerics import MemoryFormat, Numerics

LAYOUT_STEPS, LAYOUT_MACS = 1000, 1e9  # of a training, and of a step: measuring layouts pays from there
CLEARLY = 1.03  # times as fast the other layout must be
LAYOUT_SECONDS = 4.0  # of measuring, about
STEP_MACS = 30e9  # of a measured step, about: a large network is measured on a smaller batch
LEAST = 2  # images: what batch normalization needs


def macs_per_second(
    net: ExitNetwork,
    numerics: Numerics,
    device: torch.device,
    batch: int,
    step_macs: float = STEP_MACS,
) -> float:
    """Training speed: the better of two steps, after a first, of at most `batch` images; of fewer, where
    a step would take more than `step_macs`."""
    fewer = _affordable(net, batch, step_macs)
    step = stepper(net, fewer, numerics, device, updates=False)
    _, *times = (step() for _ in range(3))
    return of_step(net, fewer) / min(times)  # what else a machine does only makes a step slower


def _affordable(net: ExitNetwork, batch: int, step_macs: float = STEP_MACS) -> int:
    """Images of a step that takes no more than so many MACs, where `batch` of them would."""
    return min(batch, max(LEAST, round(step_macs / of_step(net, 1))))


def faster_layout(
    net: ExitNetwork, numerics: Numerics, batch: int, steps: float, device: torch.device
) -> MemoryFormat:
    """The memory format in which this machine trains a network fastest: channels-last, unless contiguous
    memory is clearly faster. No rule foretells it, which depends on the kind of network, on the size of
    its maps and on the processor (docs/decisions/numerics.md).

    It is measured once and remembered in the user's cache folder, so that the same call has the same
    keys again. Where nothing can be remembered, nothing is chosen.

    Args:
        net: A network.
        numerics: All else of the profile. One that is contiguous stays so.
        batch: Images of a step.
        steps: Of the whole training. One of fewer than `LAYOUT_STEPS` is not measured.
        device: Where.
    """
    usual = numerics.memory_format
    if usual == "contiguous":
        return usual
    if steps < LAYOUT_STEPS or of_step(net, batch) < LAYOUT_MACS:
        return usual
    ways = [replace(numerics, memory_format=layout) for layout in get_args(MemoryFormat)]
    shapes = {name: list(value.shape) for name, value in net.state_dict().items()}
    conditions = [devices.name(device), torch.__version__, numerics, batch, net.input_shape, shapes]
    path = user_cache() / "layouts" / f"{digest(conditions)}.json"
    if read_cached(path) is None:
        steppers = [stepper(net, _affordable(net, batch), way, device) for way in ways]
        channels_last, contiguous = map(min, in_turns(steppers, LAYOUT_SECONDS))
        write_cached(path, {"contiguous": channels_last / contiguous})
    gain = (read_cached(path) or {}).get("contiguous", 1.0)
    return "contiguous" if gain > CLEARLY else usual


def stepper(
    net: ExitNetwork, batch: int, numerics: Numerics, device: torch.device, updates: bool = True
) -> Callable[[], float]:
    """A function that makes one joint training step of a copy of `net` on noise; its answer is in
    seconds. updates: of the weights too; without them, nothing waits a second for torch's optimizers to
    be imported."""
    twin = copy.deepcopy(net)
    placed(twin, device, numerics.memory_format)
    twin.train()
    twin.requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    examples = noise(net.input_shape, batch, generator=generator).to(device)
    examples = laid_out(examples, numerics.memory_format)
    fused = numerics.fused_optimizer
    optimizer = torch.optim.SGD(twin.parameters(), 1e-3, 0.9, fused=fused) if updates else None

    def step() -> None:
        losses = [logits.float().square().mean() for logits in twin(examples)]
        twin.zero_grad()
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        if optimizer is not None:
            optimizer.step()

    return lambda: _seconds(step, numerics, device)


def _seconds(step: Callable[[], None], numerics: Numerics, device: torch.device) -> float:
    with applied(numerics):
        devices.synchronize(device)
        began = perf_counter()
        step()
        devices.synchronize(device)
        return perf_counter() - began


def in_turns(
    steps: Sequence[Callable[[], float]], seconds: float, clock: Callable[[], float] = perf_counter
) -> list[list[float]]:
    """Times of each, called in turns for about so many seconds in all; at least three each."""
    times: list[list[float]] = [[] for _ in steps]
    began = clock()
    while len(times[0]) < 3 or clock() - began < seconds:
        for own, step in zip(times, steps, strict=True):
            own.append(step())
    return times
