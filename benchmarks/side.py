"""Side by side: contenders in processes of their own, timed in turns, and what the times come to.

Each contender lives in its own process, so that settings which a process makes once (the allocator,
OpenMP, torch's threads) belong to it alone. Only one of them works at a time.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from offramp.meters.load import busy_cores

BUSY = 0.25  # cores that others use, from which on a time is not to be trusted

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """A ratio of two things measured in one run. bar: what it is held to; None where it only informs.
    spread: the lowest and the highest of the repeats.  machine: where, and what else it did."""

    name: str
    ratio: float
    bar: float | None
    better: Literal["higher", "lower"]
    spread: tuple[float, float]
    machine: str
    note: str = ""
    holds: bool | None = field(init=False)

    def __post_init__(self) -> None:
        met = None
        if self.bar is not None:
            met = self.ratio >= self.bar if self.better == "higher" else self.ratio <= self.bar
        object.__setattr__(self, "holds", met)


class Contender:
    """A process that calls `make(**arguments)` once and what that returns each time it is asked to,
    with what it is asked with.

    make: a function at the top of a module; it returns a callable whose answer (seconds, or a dict of
    plain values) travels back; what it is called with here travels there.  environment: of the process
    alone; None takes a variable away.
    """

    def __init__(
        self,
        make: Callable[..., Callable[..., Any]],
        environment: Mapping[str, str | None] | None = None,
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

    def close(self) -> None:
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    before = dict(os.environ)
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def in_turns(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Answers of each contender, a round after the other, each round begun by another one. What a
    machine does meanwhile then meets all alike. Warm-up is the contender's own matter."""
    names = list(contenders)
    found: dict[str, list[T]] = {name: [] for name in names}
    for turn in range(rounds):
        for at in range(len(names)):
            name = names[(turn + at) % len(names)]
            found[name].append(contenders[name]())
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The median of the rounds' ratios, and the lowest and the highest."""
    each = [a / b for a, b in zip(above, below, strict=True)]
    return statistics.median(each), (min(each), max(each))


def machine() -> str:
    """This machine in a line, with what others use of it now."""

    from offramp import device as devices  # here, so that what needs no torch can be measured without
    from offramp.store.provenance import provenance

    device = devices.chosen()
    made = provenance(device)
    busy = busy_cores()
    other = f"BUSY: others use {busy:.2f} cores" if busy > BUSY else f"others use {busy:.2f} cores"
    name = f"{made['device']}{_kind()} ({device.type})"
    return f"{name}, {made['cores']} cores, torch {made['torch']}; {other}"


def _kind() -> str:
    """The processor's family and model where Linux tells them: names such as `AMD EPYC` are of many."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "cpu family" not in told or "model" not in told:
        return ""
    return f", family {told['cpu family']}, model {told['model']}"
