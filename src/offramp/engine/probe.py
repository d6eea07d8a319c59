"""One training step on noise, timed: for plans and for choosing settings of a machine, never a result.

`python -m offramp.engine.probe SUBJECT` holds a network and answers questions, a line of JSON each, so
that settings which a process makes once (OpenMP's, the allocator's) belong to it alone.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from offramp import device as devices
from offramp.engine.cost import step_macs as of_step
from offramp.engine.settings import applied, laid_out, placed
from offramp.inputs import noise
from offramp.nets import ExitNetwork, NetSpec, build
from offramp.numerics import DEFAULTS, MemoryFormat, Numerics
from offramp.process import keep_freed_memory

CLASSES = 10
STEP_MACS = 30e9  # of a measured step, about: a large network is measured on a smaller batch
LEAST = 2  # images: what batch normalization needs


@dataclass(frozen=True)
class ProbeSubject:
    """What is trained: a backbone with its usual exits."""

    backbone: str
    shape: tuple[int, int, int]  # of an image, (C, H, W)
    batch: int  # images
    keep: bool = True  # whether the process keeps freed memory, as commands do
    device: str = "cpu"  # its class


@dataclass(frozen=True)
class Setup:
    """How it is trained, where that may differ from the default profile's way."""

    threads: int
    precision: Literal["float32", "bfloat16"] = "float32"
    memory_format: MemoryFormat = "channels_last"
    tf32: bool = False


def network(subject: ProbeSubject) -> ExitNetwork:
    return build(NetSpec(subject.backbone), subject.shape, CLASSES, seed=0)


def macs_per_second(
    net: ExitNetwork,
    numerics: Numerics,
    device: torch.device,
    batch: int,
    step_macs: float = STEP_MACS,
) -> float:
    """Training speed: the better of two steps, after a first, of at most `batch` images; of fewer, where
    a step would take more than `step_macs`."""
    each = of_step(net, 1)
    batch = min(batch, max(LEAST, round(step_macs / each)))
    copy, images = _laid_out(net, batch, numerics.memory_format, device)

    def step() -> None:
        losses = [logits.square().mean() for logits in copy(images)]
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]

    _, *times = (_seconds(step, numerics, device) for _ in range(3))
    return batch * each / min(times)  # what else a machine does only makes a step slower


def stepper(net: ExitNetwork, batch: int, setup: Setup, device: torch.device) -> Callable[[], float]:
    """A function that makes one joint training step of a copy of `net`; its answer is in seconds."""
    numerics = replace(DEFAULTS[device.type], **asdict(setup))
    generator = torch.Generator().manual_seed(0)
    copy, images = _laid_out(net, batch, setup.memory_format, device, generator)
    optimizer = torch.optim.SGD(copy.parameters(), lr=1e-3, momentum=0.9, fused=True)
    labels = torch.randint(CLASSES, (batch,), generator=generator).to(device)

    def step() -> None:
        losses = [F.cross_entropy(logits.float(), labels) for logits in copy(images)]
        optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return lambda: _seconds(step, numerics, device)


def _laid_out(
    net: ExitNetwork,
    batch: int,
    memory_format: MemoryFormat,
    device: torch.device,
    generator: torch.Generator | None = None,
) -> tuple[ExitNetwork, Tensor]:
    """A copy of `net`, ready to train, and noise images for it."""
    twin = copy.deepcopy(net)
    placed(twin, device, memory_format)
    twin.train()
    twin.requires_grad_(True)
    images = noise(net.input_shape, batch, generator=generator).to(device)
    return twin, laid_out(images, memory_format)


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


def main() -> None:
    """Answer each line `{"ways": […], "seconds": …}` with a list of seconds a step for each way."""
    fields = json.loads(sys.argv[1])
    subject = ProbeSubject(**{**fields, "shape": tuple(fields["shape"])})
    if subject.keep:
        keep_freed_memory()
    device = devices.chosen(subject.device)
    net = network(subject)
    steps: dict[Setup, Callable[[], float]] = {}
    _print("ready")
    for line in sys.stdin:
        request = json.loads(line)
        ways = [Setup(**way) for way in request["ways"]]
        for way in ways:
            if way not in steps:
                steps[way] = stepper(net, subject.batch, way, device)
                steps[way]()  # the first step of a shape chooses and prepares its kernels
        _print(in_turns([steps[way] for way in ways], request["seconds"]))


def question(ways: Sequence[Setup], seconds: float) -> str:
    """The line that asks a process for these ways."""
    return json.dumps({"ways": [asdict(way) for way in ways], "seconds": seconds})


def _print(answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
