"""A joint training step: the engine against loops written by hand, on the same network.

Three ways (step_by_hand.py), each in a process of its own, an epoch of a few steps in turns:

- the engine, as a run trains: order of samples, gathering, loss, and accuracies of all exits included;
- by hand with a run's settings: the same layers as plain modules, the same memory layout, fused SGD,
  deterministic kernels, the same threads, waiting as a command has them wait, and allocator, bytes
  gathered and normalized; it reports the loss alone;
- by hand at PyTorch's defaults: NCHW, SGD as it comes (a loop over parameters on a CPU), glibc's own
  allocator, float images through a DataLoader of a TensorDataset in the same process, loss.item() at
  every step; as many threads.

The memory layout is the one that `numerics: fast` takes for the network on this machine.

The first epoch has no dropout and is not timed: it shows that the first two compute the same.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from benchmarks.contest import BARE, Result, against, contender, in_turns, together
from benchmarks.step_by_hand import Case, Epoch, defaults, engine, equal_settings, network
from offramp import device as devices
from offramp.engine.probe import LAYOUT_STEPS, faster_layout
from offramp.numerics import MemoryFormat, profile
from offramp.process import keep_freed_memory

TOLERANCE = 1e-5  # of losses, relative: kernels may round otherwise on another device
WAYS = {"engine": engine, "by hand": equal_settings, "defaults": defaults}
CASES = (
    Case("mobilenetv1", 32, batch=128, steps=8),
    Case("mobilenetv2", 32, batch=128, steps=8),
    Case("resnet18", 32, batch=128, steps=6),
    Case("resnet50", 32, batch=128, steps=4),
    Case("vgg16", 32, batch=128, steps=4),
    Case("mobilenetv2", 224, batch=16, steps=6),
    *(Case("airbench", 32, 128, 8, (("width", width),)) for width in ("small", "medium")),
)


def measure(quick: bool) -> Iterator[Result]:
    """Both ratios of every network. Raises RuntimeError where engine and loop by hand differ."""
    rounds = 3 if quick else 9
    cases = [replace(c, steps=max(4, c.steps // 2)) for c in CASES if c.backbone != "vgg16"]
    with (
        contender(layout_of, BARE) as layout,
        together({name: contender(way, BARE, name=name) for name in WAYS}) as ways,
    ):
        for case in cases if quick else CASES:
            case = replace(case, layout=layout(case))
            first = {name: contender(case) for name, contender in ways.items()}
            same = agreement(case, first["engine"], first["by hand"])
            epochs = in_turns(ways, rounds, case)
            times = {name: [epoch.seconds for epoch in values] for name, values in epochs.items()}
            best = {name: f"{1000 * min(values):.0f} ms" for name, values in times.items()}
            steps = f"{case.layout}, batch {case.batch}, {case.steps} steps a turn, {rounds} turns"
            name, note = (
                f"step overhead: {case.name}",
                f"best {best['engine']} / {best['by hand']}; {steps}",
            )
            yield against(name, times["engine"], times["by hand"], bar=1.05, note=f"{note}; {same}")
            small = case.backbone.startswith("mobilenet") and case.pixels == 32
            name, note = (
                f"step against defaults: {case.name}",
                f"best {best['defaults']} / {best['engine']}",
            )
            note += f"; {steps}; defaults: NCHW, unfused SGD, glibc's allocator, DataLoader of float "
            note += "images in process, loss.item() a step; as many threads"
            more = {"bar": 1.5 if small else 1.0, "better": "higher", "note": note}
            yield against(name, times["defaults"], times["engine"], **more)


def layout_of() -> Callable[[Case], MemoryFormat]:
    """For a contender: the memory layout that a long training of one network takes here."""
    keep_freed_memory()
    where = devices.chosen()
    usual = profile("default", where.type)
    return lambda case: faster_layout(network(case), usual, case.batch, LAYOUT_STEPS, where)


def way(name: str, numerics: tuple[tuple[str, Any], ...] = ()) -> Callable[[Case], Epoch]:
    """For a contender: the next epoch of a case; another case ends the one before it. numerics: what
    differs from the profile of this device."""
    changed = replace(profile("default", devices.chosen().type), **dict(numerics))
    current: dict[Case, Iterator[Epoch]] = {}

    def ask(case: Case) -> Epoch:
        if case not in current:
            current.clear()
            gc.collect()  # a network holds cycles, and the next one needs its memory
            layout = case.layout or changed.memory_format
            current[case] = WAYS[name](case, replace(changed, memory_format=layout))
        return next(current[case])

    return ask


def agreement(case: Case, engine: Epoch, other: Epoch) -> str:
    """How far apart the losses of two ways are, in words. Raises RuntimeError where that is too far."""
    assert engine.validation_loss is not None and other.validation_loss is not None
    pairs = (engine.loss, other.loss), (engine.validation_loss, other.validation_loss)
    apart = max(abs(a - b) / abs(b) for a, b in pairs)
    if not apart <= TOLERANCE:  # not a number is a difference too
        raise RuntimeError(
            f"{case.name}: the engine and the loop by hand do not compute the same; losses in training "
            f"and afterwards, engine against hand: {pairs}"
        )
    return f"losses of both equal {'to the last bit' if apart == 0 else f'within {apart:.1e}'}"
