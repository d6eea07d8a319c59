"""Clocks of the product that run quicker or slower: on which machine a test runs must decide nothing.

`pytest --clock 0.01` is a machine on which everything seems to take a hundredth of its time, and
`--clock 20` one that is twenty times slower. Only what offramp itself measures changes: sleeps,
deadlines of libraries and times of day stay.
"""

import sys
import time
from types import SimpleNamespace

import pytest

START = {"monotonic": time.monotonic(), "perf_counter": time.perf_counter()}
REAL = {"monotonic": time.monotonic, "perf_counter": time.perf_counter}


def install(factor: float, patch: pytest.MonkeyPatch) -> None:
    """Give every module of offramp that is imported clocks which run `factor` times as fast."""

    def scaled(name: str) -> object:
        def clock() -> float:
            now: float = getattr(time, name)()
            own = getattr(time, name) is not REAL[name]  # a clock that the test moves by hand
            return now if own else START[name] + factor * (now - START[name])

        return clock

    clocks = {name: scaled(name) for name in REAL}
    module = SimpleNamespace(**{**vars(time), **clocks})
    for name, loaded in list(sys.modules.items()):
        if name.startswith("offramp"):
            if getattr(loaded, "time", None) is time:
                patch.setattr(loaded, "time", module)
            for clock, real in REAL.items():
                if getattr(loaded, clock, None) is real:
                    patch.setattr(loaded, clock, clocks[clock])
