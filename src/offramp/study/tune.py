"""What settings are worth on this machine, measured, and the profile that follows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import geometric_mean, median
from typing import final

from offramp.engine.probe import ProbeSubject, Setup, question
from offramp.engine.waiting import SHORT, SPIN_VARIABLES
from offramp.errors import OfframpError
from offramp.numerics import Numerics, custom
from offramp.study.plan.profiles import Gain

SUBJECTS = (
    ProbeSubject("digits-cnn", (1, 8, 8), 128),
    ProbeSubject("mobilenetv2", (3, 32, 32), 64),
    ProbeSubject("resnet18", (3, 32, 32), 32),
)
FORMAT = "channels-last against contiguous"
PRECISION = "bfloat16 against float32, 1 thread"
HALF = "bfloat16 against float32"
TF32 = "TF32 against float32"
AT_ONCE = "two trials of 1 thread at once against one of 2"
MEMORY = "freed memory kept against given back"
SPINNING = "short waits of threads against the library's, alone"
BESIDE = "short waits of threads against the library's, beside other work"
SLEEPING = "short waits of threads against none, alone"
WORTH = 1.05  # two trials at once must be so much faster before a trial gets one thread

UNSET: Mapping[str, str | None] = dict.fromkeys(SPIN_VARIABLES)
SHORTLY = {**UNSET, "GOMP_SPINCOUNT": str(SHORT)}  # as beside other work
PASSIVE = {**UNSET, "OMP_WAIT_POLICY": "passive"}


@dataclass(frozen=True)
class Measuring:
    """What is measured next, and of how many things it is which."""

    what: str
    number: int
    of: int


@final
class Process:
    """A process that holds a network and times its training steps. environment: of it alone; None
    removes a variable."""

    def __init__(self, subject: ProbeSubject, environment: Mapping[str, str | None]) -> None:
        mine = {k: v for k, v in {**os.environ, **environment}.items() if v is not None}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "offramp.engine.probe", json.dumps(asdict(subject))],
            env=mine,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the command, which ends this one
        )

    def ask(self, ways: Sequence[Setup], seconds: float) -> None:
        """Have it time each of some ways for so long."""
        assert self._process.stdin is not None
        print(question(ways, seconds), file=self._process.stdin, flush=True)

    def answer(self) -> list[float]:
        """Median seconds a step of each way that it was last asked for."""
        return [median(times) for times in json.loads(self._line())]

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise OfframpError(
                "a process that measures ended, perhaps for lack of memory; free some and try again"
            )
        return line

    def wait(self) -> None:
        """Until it is ready to be asked."""
        self._line()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def processes(subject: ProbeSubject, *environments: Mapping[str, str | None]) -> Iterator[list[Process]]:
    """A process for each environment, ready, ended with the block."""
    with ExitStack() as stack:
        started = []
        for environment in environments:
            started.append(Process(subject, environment))
            stack.callback(started[-1].close)
        for process in started:
            process.wait()
        yield started


def measure(
    device: str, cores: int, seconds: float = 4.0, subjects: Sequence[ProbeSubject] = SUBJECTS
) -> Iterator[Measuring | Gain]:
    """Measure everything, each part announced. seconds: of each, besides its start."""
    parts = _parts(device, cores, seconds, [replace(subject, device=device) for subject in subjects])
    for number, (what, part) in enumerate(parts, start=1):
        yield Measuring(what, number, len(parts))
        yield from part


def _parts(
    device: str, cores: int, seconds: float, subjects: Sequence[ProbeSubject]
) -> list[tuple[str, Iterator[Gain]]]:
    """What is measured, each with what measures it when it is asked to."""
    if device != "cpu":
        settings = "memory format, precision"
        return [(f"{s.backbone}: {settings}", _ways(s, _accelerated(), seconds)) for s in subjects]
    settings = "threads, memory format, precision"
    parts = [(f"{s.backbone}: {settings}", _ways(s, _on_cpu(cores), seconds)) for s in subjects]
    if cores > 1:
        parts += [(f"{s.backbone}: {AT_ONCE}", _at_once(s, seconds)) for s in subjects]
    for subject in subjects[:2]:
        threads = min(2, cores)
        parts.append((f"{subject.backbone}: OpenMP", _spinning(subject, threads, seconds)))
        parts.append((f"{subject.backbone}: memory", _memory(subject, threads, seconds)))
    return parts


def chosen(device: str, gains: Sequence[Gain]) -> Numerics:
    """The profile that measurements speak for. Only what leaves accuracy alone is chosen: threads a
    trial, for the throughput of the whole machine. Less precision is for the user to ask for."""
    at_once = [gain.ratio for gain in gains if gain.what == AT_ONCE]
    single = device == "cpu" and (not at_once or geometric_mean(at_once) >= WORTH)
    return custom(device, threads=1 if single else 2)


def _on_cpu(cores: int) -> dict[str, tuple[Setup, Setup]]:
    """Pairs of (slower, faster), as they are expected."""
    usual = Setup(min(2, cores))
    ways = {"2 threads against 1": (Setup(1), usual)} if cores > 1 else {}
    if cores > 2:
        ways[f"{cores} threads against 2"] = (usual, Setup(cores))
    return {
        **ways,
        FORMAT: (Setup(usual.threads, memory_format="contiguous"), usual),
        PRECISION: (Setup(1), Setup(1, "bfloat16")),
    }


def _accelerated() -> dict[str, tuple[Setup, Setup]]:
    usual = Setup(2)
    return {
        FORMAT: (Setup(2, memory_format="contiguous"), usual),
        HALF: (usual, Setup(2, "bfloat16")),
        TF32: (usual, Setup(2, tf32=True)),
    }


def _ways(
    subject: ProbeSubject, pairs: Mapping[str, tuple[Setup, Setup]], seconds: float
) -> Iterator[Gain]:
    ways = list(dict.fromkeys(way for pair in pairs.values() for way in pair))
    with processes(subject, UNSET) as (process,):
        process.ask(ways, seconds * len(ways) / 2)
        seconds_of = dict(zip(ways, process.answer(), strict=True))
    for what, (slow, fast) in pairs.items():
        yield _gain(what, subject, seconds_of[slow], seconds_of[fast])


def _at_once(subject: ProbeSubject, seconds: float) -> Iterator[Gain]:
    with processes(subject, UNSET, UNSET) as pair:
        for process, way in ((pair[0], Setup(2)), (pair[0], Setup(1)), (pair[1], Setup(1))):
            process.ask([way], 0.0)  # warm, before two of them meet
            process.answer()
        alone: list[float] = []
        together: list[float] = []
        for _ in range(2):
            for process in pair:
                process.ask([Setup(1)], seconds / 3)
            together += [time for process in pair for time in process.answer()]
            pair[0].ask([Setup(2)], seconds / 3)
            alone += pair[0].answer()
    yield _gain(AT_ONCE, subject, median(alone), median(together) / 2)


def _spinning(subject: ProbeSubject, threads: int, seconds: float) -> Iterator[Gain]:
    with processes(subject, UNSET, PASSIVE, SHORTLY) as three:
        quiet = _in_turns(three, Setup(threads), seconds / 3)
        with _neighbor():
            beside = _in_turns(three, Setup(threads), seconds / 3)
    yield _gain(SPINNING, subject, quiet[0], quiet[2])
    yield _gain(SLEEPING, subject, quiet[1], quiet[2])
    yield _gain(BESIDE, subject, beside[0], beside[2])


def _memory(subject: ProbeSubject, threads: int, seconds: float) -> Iterator[Gain]:
    usual = replace(subject, keep=False)
    with processes(usual, UNSET) as (freeing,), processes(subject, UNSET) as (keeping,):
        slow, fast = _in_turns([freeing, keeping], Setup(threads), seconds / 3)
    yield _gain(MEMORY, subject, slow, fast)


def _in_turns(several: Sequence[Process], way: Setup, seconds: float) -> list[float]:
    """Median seconds a step in each process; only one works at a time."""
    each: list[list[float]] = [[] for _ in several]
    for _ in range(2):
        for times, process in zip(each, several, strict=True):
            process.ask([way], seconds)
            times += process.answer()
    return [median(times) for times in each]


# It ends with whoever started it, even where that is killed.
BUSY_LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"


@contextmanager
def _neighbor() -> Iterator[None]:
    """A process that keeps one core busy."""
    with subprocess.Popen([sys.executable, "-c", BUSY_LOOP], start_new_session=True) as other:
        try:
            yield
        finally:
            other.kill()


def _gain(what: str, subject: ProbeSubject, slow: float, fast: float) -> Gain:
    return Gain(what=what, network=subject.backbone, ratio=round(slow / fast, 3))
