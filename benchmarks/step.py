"""A joint training step: the engine against loops written by hand, on the same network.

Three ways (`benchmarks.loops`), each in a process of its own, an epoch of a few steps in turns:

- the engine, as a run trains: order of samples, gathering, loss, and accuracies of all exits included;
- by hand with a run's settings: the same layers as plain modules, channels-last, fused SGD,
  deterministic kernels, the same threads, waiting as a command has them wait, and allocator, bytes
  gathered and normalized; it reports the loss alone;
- by hand at PyTorch's defaults: NCHW, SGD as it comes (a loop over parameters on a CPU), glibc's own
  allocator, float images through a DataLoader of a TensorDataset in the same process, loss.item() at
  every step; as many threads.

The first epoch has no dropout and is not timed: it shows that the first two compute the same.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from benchmarks import loops
from benchmarks.loops import Case, Epoch
from benchmarks.runs import AS_COMMAND, BARE
from benchmarks.side import Contender, Result, in_turns, machine, ratio

OVERHEAD_BAR, DEFAULTS_BAR = 1.05, 1.5
TOLERANCE = 1e-5  # of losses, relative: kernels may round otherwise on another device
WAYS = {"engine": loops.engine, "by hand": loops.equal_settings, "defaults": loops.defaults}
CASES = (
    Case("mobilenetv1", 32, batch=128, steps=8),
    Case("mobilenetv2", 32, batch=128, steps=8),
    Case("resnet18", 32, batch=128, steps=6),
    Case("resnet50", 32, batch=128, steps=2),
    Case("vgg16", 32, batch=128, steps=2),
    Case("mobilenetv2", 224, batch=16, steps=6),
)
ROUNDS, QUICK_ROUNDS = 9, 5


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Result]:
    """Both ratios of every network."""
    cases = [replace(case, steps=max(1, case.steps // 2)) if quick else case for case in CASES]
    yield from compare(cases, QUICK_ROUNDS if quick else ROUNDS, say)


def compare(cases: list[Case], rounds: int, say: Callable[[str], None]) -> Iterator[Result]:
    """The results of these cases. Raises RuntimeError where the engine and the loop by hand differ."""
    with ExitStack() as stack:
        ways = {
            name: stack.enter_context(
                Contender(way, BARE if name == "defaults" else AS_COMMAND, name=name)
            )
            for name in WAYS
        }
        for case in cases:
            first = {name: contender(case) for name, contender in ways.items()}
            same = agreement(case, first["engine"], first["by hand"])
            say(f"  {case.name}: {same}")
            turns = in_turns({name: partial(ask, case) for name, ask in ways.items()}, rounds)
            yield from _results(case, {k: [e.seconds for e in v] for k, v in turns.items()}, same)


def way(name: str) -> Callable[[Case], Epoch]:
    """For a contender: the next epoch of a case; another case ends the one before it."""
    current: tuple[Case, Iterator[Epoch]] | None = None

    def run(case: Case) -> Epoch:
        nonlocal current
        if current is None or current[0] != case:
            current = None
            gc.collect()  # a network holds cycles, and the next one needs its memory
            current = case, WAYS[name](case)
        return next(current[1])

    return run


def agreement(case: Case, engine: Epoch, other: Epoch) -> str:
    """How far apart the losses of two ways are, in words. Raises RuntimeError where that is too far."""
    assert engine.validation_loss is not None and other.validation_loss is not None
    pairs = (engine.loss, other.loss), (engine.validation_loss, other.validation_loss)
    apart = max(abs(a - b) / abs(b) for a, b in pairs)
    if not apart <= TOLERANCE:  # not a number is a difference too
        raise RuntimeError(
            f"{case.name}: the engine and the loop by hand do not compute the same; losses in training "
            f"and afterwards {pairs[0][0]:.9g} and {pairs[1][0]:.9g} against {pairs[0][1]:.9g} and "
            f"{pairs[1][1]:.9g}"
        )
    if apart == 0:
        return "losses of both equal to the last bit"
    return f"losses of both equal within {apart:.1e}"


def _results(case: Case, seconds: dict[str, list[float]], same: str) -> Iterator[Result]:
    where = machine()
    best = {name: f"{1000 * min(times):.0f} ms" for name, times in seconds.items()}
    steps = f"batch {case.batch}, {case.steps} steps a turn, {len(seconds['engine'])} turns"
    value, spread = ratio(seconds["engine"], seconds["by hand"])
    note = f"best {best['engine']} / {best['by hand']}; {steps}; {same}"
    yield Result(f"step overhead: {case.name}", value, OVERHEAD_BAR, "lower", spread, where, note)
    value, spread = ratio(seconds["defaults"], seconds["engine"])
    bar = DEFAULTS_BAR if case.backbone.startswith("mobilenet") and case.pixels == 32 else None
    note = (
        f"best {best['defaults']} / {best['engine']}; {steps}; defaults: NCHW, unfused SGD, glibc's "
        "allocator, DataLoader of float images in process, loss.item() a step; as many threads"
    )
    yield Result(f"step against defaults: {case.name}", value, bar, "higher", spread, where, note)
