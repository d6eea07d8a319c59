"""Contenders in processes of their own, timed in turns, and what their times come to.

Settings that a process makes once (the allocator, OpenMP, torch's threads) belong to a contender alone.
Only one of them works at a time.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeVar
from unittest.mock import patch

import psutil

from offramp.engine.waiting import SPIN_VARIABLES
from offramp.meters.capacity import busy_cores

BUSY = 0.25  # cores that others use, from which on a time is not to be trusted
Environment = Mapping[str, str | None]
MALLOC = tuple(name for name in os.environ if name.startswith("MALLOC_"))
BARE: Environment = dict.fromkeys((*SPIN_VARIABLES, "OMP_NUM_THREADS", *MALLOC))
"""The environment of a process that starts as the command does where the user set nothing."""

BUSY_LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"

K, T = TypeVar("K"), TypeVar("T")


def machine() -> str:
    """This machine in a line, with what others use of it now."""
    from offramp import device as devices  # here: what needs no torch is measured without
    from offramp.store.provenance import provenance

    device = devices.chosen()
    facts, busy = provenance(device), busy_cores()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    # Names such as `AMD EPYC` are of many processors.
    kind = f", family {cpu['cpu family']}, model {cpu['model']}" if "cpu family" in cpu else ""
    other = f"{'BUSY: ' if busy > BUSY else ''}others use {busy:.2f} cores"
    return f"{facts.device}{kind} ({device.type}), {facts.cores} cores, torch {facts.torch}; {other}"


@dataclass(frozen=True)
class Result:
    """A ratio of two things measured in one run.

    Attributes:
        bar: What it must reach; None where it only informs.
        spread: The lowest and the highest of the repeats.
        machine: Where, and what else it did.
    """

    name: str
    ratio: float
    bar: float | None = None
    better: Literal["higher", "lower"] = "lower"
    spread: tuple[float, ...] = ()
    machine: str = field(default_factory=machine)
    note: str = ""

    @property
    def holds(self) -> bool | None:
        if self.bar is None:
            return None
        return self.ratio >= self.bar if self.better == "higher" else self.ratio <= self.bar


def middle(name: str, values: Sequence[float], **more: Any) -> Result:
    """The result of a repeated measurement; more: further fields."""
    return Result(name, median(values), spread=(min(values), max(values)), **more)


def against(name: str, above: Sequence[float], below: Sequence[float], **more: Any) -> Result:
    """The result of times in turns: the median of the rounds' ratios."""
    return middle(name, [a / b for a, b in zip(above, below, strict=True)], **more)


@contextmanager
def contender(
    make: Callable[..., Callable[..., Any] | Iterator[Any]],
    environment: Environment | None = None,
    **arguments: Any,
) -> Iterator[Callable[..., Any]]:
    """A process that calls `make(**arguments)` once, and what that returns for each request.

    Args:
        make: A function at the top of a module; it returns a callable whose answer (seconds, or plain
            values) travels back, or a generator, after which None comes.
        environment: Of the process alone; None takes a variable away.
        **arguments: Of `make`.
    """
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    # Not a daemon: those may not start processes, and some contenders have images read by such.
    process = context.Process(target=_serve, args=(theirs, make, arguments))
    alone = {n: v for n, v in {**os.environ, **(environment or {})}.items() if v is not None}
    with patch.dict(os.environ, alone, clear=True):
        process.start()
    theirs.close()

    def answer() -> Any:
        try:
            good, answer = pipe.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"a contender died (exit code {process.exitcode})") from None
        if not good:
            raise RuntimeError(f"a contender failed: {answer}")
        return answer

    def ask(*args: Any) -> Any:
        pipe.send(args)
        return answer()

    try:
        answer()  # built
        yield ask
    finally:
        process.kill()
        process.join()


@contextmanager
def together(processes: Mapping[K, AbstractContextManager[T]]) -> Iterator[dict[K, T]]:
    """All of them at once, by name."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(process) for name, process in processes.items()}


def _serve(pipe: Any, make: Callable[..., Any], arguments: dict[str, Any]) -> None:
    try:
        contender = make(**arguments)
        run = partial(next, contender, None) if isinstance(contender, Iterator) else contender
        pipe.send((True, None))
        while True:
            pipe.send((True, run(*pipe.recv())))
    except (EOFError, KeyboardInterrupt):
        return
    except Exception as error:
        pipe.send((False, f"{type(error).__name__}: {error}"))


@contextmanager
def neighbor() -> Iterator[psutil.Process]:
    """A process that keeps one core busy; it can be suspended and resumed."""
    with psutil.Popen([sys.executable, "-c", BUSY_LOOP]) as process:
        try:
            yield process
        finally:
            process.kill()


def in_turns(contenders: Mapping[K, Callable[..., T]], rounds: int, *args: Any) -> dict[K, list[T]]:
    """Answers of each contender, a round after the other, each round begun by another one. What a
    machine does meanwhile then meets all alike. Warm-up is the contender's own matter."""
    names = list(contenders)
    answers: dict[K, list[T]] = {name: [] for name in names}
    for turn in range(rounds):
        for at in range(len(names)):
            name = names[(turn + at) % len(names)]
            answers[name].append(contenders[name](*args))
    return answers
