"""What random operations draw from: the seed, their own name, the epoch and the step."""

from __future__ import annotations

from typing import final

from offramp import device as devices
from offramp.hashing import derive


@final
class Clock:
    """Which (seed, epoch, step) the random operations of one network draw for. A clock that was never
    started, or was stopped, leaves the global generator alone."""

    # Dropout and drop-path take no generator of their own, so the global one is seeded right before
    # each of them. Masks then depend neither on which other parts run nor on their order.

    def __init__(self) -> None:
        self._now: tuple[int, int, int] | None = None

    def tick(self, seed: int, epoch: int, step: int) -> None:
        """From now on, draw for this step of this epoch under this seed."""
        self._now = (seed, epoch, step)

    def stop(self) -> None:
        """From now on, draw from the global generator as it stands."""
        self._now = None

    def reseed(self, name: str) -> None:
        """Seed the global generator for the operation `name`; does nothing on a stopped clock."""
        if self._now is not None:
            seed, epoch, step = self._now
            devices.reseed(derive(seed, "noise", name, epoch, step))
