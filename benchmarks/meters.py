"""What sampling costs beside training: a joint step of ResNet-18 with a meter and without, in turns, and
a single reading by itself. Bar: less than 1 % of training time."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.contest import Result, Say, against, in_turns, percent
from benchmarks.step_by_hand import Case, equal_settings
from offramp.meters import Meter, Missing, find_packages

READINGS = 200


def measure(quick: bool, say: Say) -> Iterator[Result]:
    rounds, epochs = (3, 5) if quick else (8, 30)
    steps = equal_settings(Case("resnet18", 32, batch=128, steps=epochs))
    next(steps)

    def metered() -> float:
        with Meter(find_packages(), Missing("not here")):
            return next(steps).seconds

    times = in_turns({"without": lambda: next(steps).seconds, "with": metered}, rounds)
    meter = Meter(find_packages(), Missing("not here"))
    began = time.perf_counter()
    for _ in range(READINGS):
        meter.sample()
    reading = (time.perf_counter() - began) / READINGS
    note = f"one reading {1e3 * reading:.2f} ms, {percent(reading, 2)} of the second between two"
    say(f"  {note}")
    yield Result("meters: a reading / the second between two", reading, 0.01, note=note)
    yield against("meters: a step with a meter / without", times["with"], times["without"], note=note)
