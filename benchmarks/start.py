"""How long the command takes to start and to answer: whole processes, from a cold interpreter.

Their files are in the kernel's cache and compiled to bytecode, as from the second start on.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.contest import Result, Say, in_turns, said
from benchmarks.made_store import make_store
from benchmarks.subjects import ROOT

STUDY = ROOT / "studies" / "demo.yaml"
BARS = {"offramp --help": 0.3, "offramp strategies": 0.5}  # seconds
DRY = "offramp run --dry-run"  # the only one that needs torch


def measure(quick: bool, say: Say) -> Iterator[Result]:
    rounds = 3 if quick else 10
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store", STUDY)  # that of the demo, made without training
        offramp, of = ("-m", "offramp"), ("--store", str(store.root))
        commands: dict[str, tuple[str, ...]] = {
            "import offramp": ("-c", "import offramp"),
            "offramp --help": (*offramp, "--help"),
            "offramp strategies": (*offramp, "strategies"),
            "offramp status": (*offramp, "status", *of),
            "offramp show": (*offramp, "show", store.trials()[0], *of),
            DRY: (*offramp, "run", str(STUDY), "--dry-run", *of),
        }
        for name, command in commands.items():
            seconds(command)  # its files are read and compiled now
            if name != DRY:
                note = "how many modules of torch it imports"
                yield Result(f"start: {name}, modules of torch", torch_modules(command), 0, note=note)
        found = in_turns({name: partial(seconds, command) for name, command in commands.items()}, rounds)
    say(f"  {said(found, digits=2)} s")
    for name, times in found.items():
        note = f"seconds, median of {rounds} processes"
        spread = (min(times), max(times))
        yield Result(f"start: {name}, seconds", median(times), BARS.get(name), spread=spread, note=note)


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
