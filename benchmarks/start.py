"""How long the command takes to start and to answer: whole processes, from a cold interpreter.

Their files are in the kernel's cache and compiled to bytecode, as from the second start on.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.made_store import make_store
from benchmarks.side import Result, in_turns, machine

STUDY = Path(__file__).parent.parent / "studies" / "demo.yaml"
IMPORT, HELP, STRATEGIES, STATUS, SHOW, DRY = (
    "import offramp",
    "offramp --help",
    "offramp strategies",
    "offramp status",
    "offramp show",
    "offramp run --dry-run",
)
BARS = {HELP: 0.3, STRATEGIES: 0.5}  # seconds
WITHOUT_TORCH = (IMPORT, HELP, STRATEGIES, STATUS, SHOW)


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Result]:
    rounds = 3 if quick else 10
    here = machine()
    with tempfile.TemporaryDirectory() as folder:
        commands = _commands(Path(folder))
        for name, command in commands.items():
            seconds(command)  # its files are read and compiled now
            if name in WITHOUT_TORCH:
                yield _torch(name, command, here)
        found = in_turns({name: partial(seconds, command) for name, command in commands.items()}, rounds)
    for name, times in found.items():
        say(f"  {name}: {statistics.median(times):.2f} s")
        spread = (min(times), max(times))
        note = f"seconds, median of {rounds} processes"
        yield Result(
            f"start: {name}, seconds",
            statistics.median(times),
            BARS.get(name),
            "lower",
            spread,
            here,
            note,
        )


def _commands(folder: Path) -> dict[str, tuple[str, ...]]:
    """What follows `python`, by name. The store is that of the demo, made without training."""
    store = make_store(folder / "store", STUDY)
    offramp, of = ("-m", "offramp"), ("--store", str(store.root))
    return {
        IMPORT: ("-c", IMPORT),
        HELP: (*offramp, "--help"),
        STRATEGIES: (*offramp, "strategies"),
        STATUS: (*offramp, "status", *of),
        SHOW: (*offramp, "show", store.trials()[0], *of),
        DRY: (*offramp, "run", str(STUDY), "--dry-run", *of),
    }


def seconds(arguments: Sequence[str]) -> float:
    """Of a process of its own, from its start to its end."""
    began = time.perf_counter()
    quiet = subprocess.DEVNULL
    subprocess.run([sys.executable, *arguments], check=True, stdout=quiet, stderr=quiet)
    return time.perf_counter() - began


def torch_modules(arguments: Sequence[str]) -> int:
    """How many modules of torch a process has imported at its end, by Python's own account."""
    timed = [sys.executable, "-X", "importtime", *arguments]
    ended = subprocess.run(timed, check=True, capture_output=True, text=True)
    names = [line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()]
    return sum(name.partition(".")[0] == "torch" for name in names)


def _torch(name: str, command: Sequence[str], here: str) -> Result:
    count = torch_modules(command)
    note = "how many modules of torch it imports"
    return Result(f"start: {name}, modules of torch", count, 0, "lower", (count, count), here, note)
