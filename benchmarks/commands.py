"""How long commands take: whole processes, from a cold interpreter.

Their files are in the kernel's cache and compiled to bytecode, as from the second start on. They are
asked on the demo's store, and on one of 1,008 trials; both are made without training (made_store.py).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.contest import Result, in_turns, middle
from benchmarks.made_store import make_store
from benchmarks.subjects import ROOT

STUDY = ROOT / "studies" / "demo.yaml"
OFFRAMP = ("-m", "offramp")
STRATEGIES = 9  # of the demo's study
A_FEW_SECONDS = 5.0  # of a command that plans, of which torch and the data take most at any size
QUICK_SECONDS = 3.0  # of one that only looks
Commands = Mapping[str, tuple[tuple[str, ...], float | None]]  # what follows `python`, the bar


def measure(quick: bool) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        of = ("--store", str(make_store(Path(folder) / "demo", STUDY).root))
        cold: Commands = {
            "import offramp": (("-c", "import offramp"), None),
            "offramp --help": ((*OFFRAMP, "--help"), 0.3),
            "offramp strategies": ((*OFFRAMP, "strategies"), 0.5),
            "offramp status": ((*OFFRAMP, "status", *of), None),
        }
        for name, (words, _) in cold.items():  # its files are read and compiled now
            note = "how many modules of torch it imports"
            yield Result(f"start: {name}, modules of torch", torch_modules(words), 0, note=note)
        cold |= {"offramp run --dry-run": ((*OFFRAMP, "run", str(STUDY), "--dry-run", *of), None)}
        yield from timed("start: {}, seconds", cold, 3 if quick else 10)

        seeds = 22 if quick else 112
        study = (str(STUDY), "--set", f"seeds={list(range(1, seeds + 1))}")
        of = ("--store", str(make_store(Path(folder) / "many", STUDY, study[2:]).root))
        table = ("--numbers", str(Path(folder) / "table.parquet"))
        many: Commands = {
            "status": ((*OFFRAMP, "status", *of), QUICK_SECONDS),
            "compare": ((*OFFRAMP, "compare", "joint", "two-stage", *of), QUICK_SECONDS),
            "run --dry-run": ((*OFFRAMP, "run", *study, "--dry-run", *of), A_FEW_SECONDS),
            "run, all of it there": ((*OFFRAMP, "run", *study, *of), None),
            "report --numbers": ((*OFFRAMP, "report", *table, *of), A_FEW_SECONDS),
        }
        name = f"scale: offramp {{}} at {seeds * STRATEGIES} trials, seconds"
        yield from timed(name, many, 1 if quick else 3)


def timed(title: str, commands: Commands, rounds: int) -> Iterator[Result]:
    """Seconds of each command, a process each, in turns."""
    spent = in_turns({name: partial(seconds, words) for name, (words, _) in commands.items()}, rounds)
    for name, times in spent.items():
        note = f"seconds, median of {rounds} processes"
        yield middle(title.format(name), times, bar=commands[name][1], note=note)


def seconds(arguments: Sequence[str]) -> float:
    """Of a process of its own, from its start to its end. arguments: what follows `python`."""
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
