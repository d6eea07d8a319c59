"""How long OpenMP's threads spin before they sleep, set before torch is first loaded."""

from __future__ import annotations

import os
import sys

SPINS = 700  # turns of the loop: some tens of microseconds
GIVEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # a user's own word on waiting


def bound_spinning() -> bool:
    """Have GNU OpenMP's threads look for work a short while, then sleep; whether that holds.

    By default a thread that waits turns 300,000 times, milliseconds in which it keeps a core from
    whoever else has work: with one other busy process a training step takes several times as long.
    Threads that sleep at once must be woken for every operation, which tells where operations are
    small. OpenMP reads its settings once, when torch is loaded: later this does nothing. Processes
    started from here inherit it. No result depends on it. What the user set stays.
    """
    if any(name in os.environ for name in GIVEN):
        return os.environ.get("GOMP_SPINCOUNT") == str(SPINS)
    if "torch" in sys.modules:
        return False
    os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    return True
