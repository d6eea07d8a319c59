"""A mean latency that is held on a stream of images whose difficulty drifts, by moving thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from offramp.policy.scoring import SCORES

WINDOW = 32  # images that the mean is of, the latest counting most
GAIN = 0.25 / WINDOW  # small beside what the mean lags behind, so that nothing swings
STEPS = 40  # places between the policy and each end; thresholds change when the next one is reached


@dataclass(frozen=True)
class Hold:
    """What is held, and where. target: seconds an image, on average.  position: from -1, all leave at
    the first exit that may let them, over 0, the policy as it was made, to 1, none leaves early.  mean:
    seconds of the latest images; None before the first."""

    target: float
    position: float = 0.0
    mean: float | None = None

    def after(self, seconds: float) -> Hold:
        """When another image has taken so long."""
        mean = seconds if self.mean is None else self.mean + (seconds - self.mean) / WINDOW
        moved = self.position + GAIN * math.log(self.target / mean)
        return replace(self, mean=mean, position=min(1.0, max(-1.0, moved)))

    @property
    def step(self) -> int:
        """The position in whole steps, from -STEPS to STEPS."""
        return round(self.position * STEPS)


def moved(score: str, thresholds: Sequence[float | None], step: int) -> tuple[float | None, ...]:
    """Thresholds so many steps from the policy's own: down to the lowest score, or up until none lets
    anything leave.

    Raises ValueError for a score that no threshold may move for, such as one that counts exits.

    >>> moved("confidence", (0.8, 0.6, None), -20), moved("confidence", (0.8, None), 40)
    ((0.4, 0.3, None), (None, None))
    """
    kind = SCORES[score]
    if not kind.graded:
        raise ValueError(f"thresholds of {score} do not move by degrees")
    share = abs(step) / STEPS
    if share == 1 and step > 0:
        return (None,) * len(thresholds)
    end = kind.low if step < 0 else kind.high
    return tuple(None if t is None else _toward(end, t, share) for t in thresholds)


def _toward(end: float, threshold: float, share: float) -> float:
    """Where a share of the way to an end leads. An infinite end is reached with the whole of it; half
    of it is a unit, or for large thresholds as much as they are."""
    if math.isfinite(end):
        return threshold + share * (end - threshold)
    way = share / (1 - share) if share < 1 else math.inf
    return threshold + math.copysign(max(1.0, abs(threshold)) * way, end)
