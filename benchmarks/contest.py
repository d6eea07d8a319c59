"""Contenders in processes of their own, timed in turns, and what their times come to.

Settings that a process makes once (the allocator, OpenMP, torch's threads) belong to a contender alone.
Only one of them works at a time.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import psutil

from offramp.meters.load import busy_cores
from offramp.process import GIVEN, SPINS

BUSY = 0.25  # cores that others use, from which on a time is not to be trusted
Say = Callable[[str], None]
Environment = Mapping[str, str | None]
MALLOC = tuple(name for name in os.environ if name.startswith("MALLOC_"))
BARE: Environment = dict.fromkeys((*GIVEN, "OMP_NUM_THREADS", *MALLOC))
"""The environment of a process that starts as the command does where the user set nothing."""
AS_COMMAND: Environment = {**BARE, "GOMP_SPINCOUNT": str(SPINS)}
"""The same with what the command sets: for a process that does not call `prepare` itself."""

BUSY_LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"

K, T = TypeVar("K"), TypeVar("T")


def machine() -> str:
    """This machine in a line, with what others use of it now."""
    from offramp import device as devices  # here: what needs no torch is measured without
    from offramp.store.provenance import provenance

    device = devices.chosen()
    made, busy = provenance(device), busy_cores()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    # Names such as `AMD EPYC` are of many processors.
    kind = f", family {told['cpu family']}, model {told['model']}" if "cpu family" in told else ""
    other = f"{'BUSY: ' if busy > BUSY else ''}others use {busy:.2f} cores"
    return (
        f"{made['device']}{kind} ({device.type}), {made['cores']} cores, torch {made['torch']}; {other}"
    )


@dataclass(frozen=True)
class Result:
    """A ratio of two things measured in one run. bar: what it is held to; None where it only informs.
    spread: the lowest and the highest of the repeats.  machine: where, and what else it did."""

    name: str
    ratio: float
    bar: float | None = None
    better: Literal["higher", "lower"] = "lower"
    spread: tuple[float, float] = ()  # type: ignore[assignment]
    machine: str = field(default_factory=machine)
    note: str = ""
    holds: bool | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spread", self.spread or (self.ratio, self.ratio))
        met = self.ratio >= (self.bar or 0) if self.better == "higher" else self.ratio <= (self.bar or 0)
        object.__setattr__(self, "holds", None if self.bar is None else met)


class Contender:
    """A process that calls `make(**arguments)` once and what that returns each time it is asked to,
    with what it is asked with.

    make: a function at the top of a module; it returns a callable whose answer (seconds, or plain
    values) travels back.  environment: of the process alone; None takes a variable away.
    """

    def __init__(
        self,
        make: Callable[..., Callable[..., Any]],
        environment: Environment | None = None,
        **arguments: Any,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # Not a daemon: those may not start processes, and some contenders have images read by such.
        self._process = context.Process(target=_serve, args=(theirs, make, arguments))
        with _environment(environment or {}):
            self._process.start()
        theirs.close()
        self._answer()  # built

    def __call__(self, *given: Any) -> Any:
        self._pipe.send(given)
        return self._answer()

    def _answer(self) -> Any:
        try:
            good, answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"a contender died (exit code {self._process.exitcode})") from None
        if not good:
            raise RuntimeError(f"a contender failed: {answer}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()


def _serve(pipe: Any, make: Callable[..., Callable[..., Any]], arguments: dict[str, Any]) -> None:
    try:
        run = make(**arguments)
        pipe.send((True, None))
        while True:
            pipe.send((True, run(*pipe.recv())))
    except (EOFError, KeyboardInterrupt):
        return
    except Exception as error:
        pipe.send((False, f"{type(error).__name__}: {error}"))


@contextmanager
def _environment(changes: Environment) -> Iterator[None]:
    before = dict(os.environ)
    for name, value in changes.items():
        os.environ.pop(name, None)
        os.environ.update({} if value is None else {name: value})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def neighbor() -> Iterator[psutil.Process]:
    """A process that keeps one core busy; it can be suspended and resumed."""
    with psutil.Popen([sys.executable, "-c", BUSY_LOOP]) as process:
        try:
            yield process
        finally:
            process.kill()


def in_turns(contenders: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """Answers of each contender, a round after the other, each round begun by another one. What a
    machine does meanwhile then meets all alike. Warm-up is the contender's own matter."""
    names = list(contenders)
    found: dict[K, list[T]] = {name: [] for name in names}
    for turn in range(rounds):
        for at in range(len(names)):
            name = names[(turn + at) % len(names)]
            found[name].append(contenders[name]())
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The median of the rounds' ratios, and the lowest and the highest."""
    each = [a / b for a, b in zip(above, below, strict=True)]
    return statistics.median(each), (min(each), max(each))


def against(name: str, above: Sequence[float], below: Sequence[float], **more: Any) -> Result:
    """The result of a ratio of times in turns; more: further fields."""
    value, spread = ratio(above, below)
    return Result(name, value, spread=spread, **more)


def said(times: Mapping[str, Sequence[float]], scale: float = 1.0, digits: int = 1) -> str:
    """Medians by name, in words."""
    return ", ".join(f"{name} {scale * statistics.median(t):.{digits}f}" for name, t in times.items())


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"
