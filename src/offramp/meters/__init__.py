"""What training draws from the machine: memory, power, energy; and what it may take. No torch.

A meter that cannot be read is `Missing` with its reason; no value is ever made up in its place.
"""

from offramp.meters.capacity import (
    BUSY,
    busy_cores,
    computing_cores,
    free_addresses,
    free_memory,
    killed_for_memory,
    usable_cores,
)
from offramp.meters.meter import Meter, Usage, not_measured
from offramp.meters.sensors import NO_GPU, Gpu, Missing, Packages, find_gpu, find_packages

__all__ = [
    "BUSY",
    "NO_GPU",
    "Gpu",
    "Meter",
    "Missing",
    "Packages",
    "Usage",
    "busy_cores",
    "computing_cores",
    "find_gpu",
    "find_packages",
    "free_addresses",
    "free_memory",
    "killed_for_memory",
    "not_measured",
    "usable_cores",
]
