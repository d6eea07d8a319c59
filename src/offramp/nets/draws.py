"""Random draws that leave the global generators as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, and put them back at the end.

    Those of CUDA devices too, which `torch.manual_seed` seeds with the CPU's, once CUDA is in use:
    reading them would start it.
    """
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if in_use else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
