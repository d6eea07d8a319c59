"""What else the machine is doing."""

from __future__ import annotations

import psutil

BUSY = 0.5  # cores kept by other processes, from which on times that are measured mislead


def busy_cores(seconds: float = 0.5) -> float:
    """Cores that other processes keep busy, over a stretch in which this one waits."""
    return float(psutil.cpu_percent(interval=seconds)) / 100 * (psutil.cpu_count() or 1)
