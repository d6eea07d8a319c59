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
from typing import Any, Literal, get_args

import torch

from offramp import device as devices
from offramp.engine.cost import step_macs as of_step
from offramp.engine.settings import applied, laid_out, placed
from offramp.files import read_cached, user_cache, write_cached
from offramp.hashing import digest
from offramp.inputs import noise
from offramp.nets import ExitNetwork, NetSpec, build
from offramp.numerics import DEFAULTS, MemoryFormat, Numerics
from offramp.process import keep_freed_memory

CLASSES = 10
LAYOUT_STEPS, LAYOUT_MACS = 1000, 1e9  # of a training, and of a step: measuring layouts pays from there
CLEARLY = 1.03  # times as fast the other layout must be
LAYOUT_SECONDS = 4.0  # of measuring, about
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
                numerics = replace(DEFAULTS[device.type], **asdict(way))
                steps[way] = stepper(net, subject.batch, numerics, device)
                steps[way]()  # the first step of a shape chooses and prepares its kernels
        _print(in_turns([steps[way] for way in ways], request["seconds"]))


def question(ways: Sequence[Setup], seconds: float) -> str:
    """The line that asks a process for these ways."""
    return json.dumps({"ways": [asdict(way) for way in ways], "seconds": seconds})


def _print(answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
