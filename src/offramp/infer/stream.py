"""Images answered one by one as they come; with a target, thresholds move so that the mean latency stays
there while the images' difficulty drifts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from offramp.infer.image_files import FileAnswer, Network, Unanswered, read
from offramp.policy.scoring import SCORES

WINDOW = 32  # images that the mean is of, the latest counting most
GAIN = 0.25 / WINDOW  # small beside what the mean lags behind, so that nothing swings
STEPS = 40  # places between the policy and each end; thresholds change when the next one is reached


@dataclass(frozen=True)
class Streamed:
    """A file's answer and what it took; or None, and the reason why there is none."""

    file: Path
    answer: FileAnswer | None
    seconds: float = 0.0
    reason: str = ""


def answers(
    network: Network,
    files: Iterable[Path],
    target: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Streamed]:
    """The network's answer for each file, read once the one before is answered. target: seconds an image
    on average, for which thresholds move; ValueError, before anything is read, where they cannot."""
    if target is not None:
        moved(network.score, network.thresholds, 0)
    return _answers(network, files, None if target is None else Hold(target), clock)


def _answers(
    network: Network, files: Iterable[Path], hold: Hold | None, clock: Callable[[], float]
) -> Iterator[Streamed]:
    steps: dict[int, Network] = {0: network}
    for file in files:
        pixels = read(file, network.preprocessing)
        if isinstance(pixels, Unanswered):
            yield Streamed(file, None, reason=pixels.reason)
            continue
        step = 0 if hold is None else hold.step
        if step not in steps:
            run = network.under(moved(network.score, network.thresholds, step))
            steps[step] = replace(network, run=run)
        began = clock()
        prediction = steps[step].answer(pixels[None])
        seconds = clock() - began
        hold = None if hold is None else hold.after(seconds)
        (answer,) = network.of_files([file], prediction)
        if isinstance(answer, Unanswered):
            yield Streamed(file, None, seconds, answer.reason)
        else:
            yield Streamed(file, answer, seconds)


@dataclass(frozen=True)
class Hold:
    """How a mean latency is held."""

    target: float  # seconds an image, on average
    # from -1, all leave at the first exit that may let them, over 0, the policy as it was made, to 1,
    # none leaves early
    position: float = 0.0
    mean: float | None = None  # seconds of the latest images; None before the first

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

    Raises:
        ValueError: No threshold of the score may move, such as of one that counts exits.

    Example:
        >>> moved("confidence", (0.8, 0.6, None), -20), moved("confidence", (0.8, None), 40)
        ((0.4, 0.3, None), (None, None))
    """
    kind = SCORES[score]
    if not kind.graded:
        raise ValueError(f"the score {score} has no thresholds that move by degrees; leave it out")
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
