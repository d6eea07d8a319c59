"""When images are no longer those of calibration: a sequential test with a bound on its false alarms.

Each watched share has bounds that calibration gives. Beyond a bound lies what is bet on: an e-value for
each image, of mean 1 at most as long as the chance of its share, given all images before it, is within
the bounds. Their running products, begun anew wherever they fall below 1 (Page's CUSUM), are averaged.
While the shares are within their bounds, that average has, at any time at which one may stop, a mean of
no more than the number of images until then. So the mean number of images until it reaches N, a false
alarm, is at least N, whatever N is. Images need not be independent.

References:
    J. Shin, A. Ramdas, A. Rinaldo. *E-detectors: a nonparametric framework for sequential change
    detection*. 2022, arXiv 2203.03532.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp.bundle import expected
from offramp.bundle.expected import ExpectedShare
from offramp.units import percent

if TYPE_CHECKING:
    from offramp.bundle.runtime import Bundle
    from offramp.serve.batcher import Answer

Floats = NDArray[np.floating]
YEAR = 365 * 24 * 3600 * 10  # images of a year, at ten a second
LEAST = 1000  # images without new evidence, before an alarm ends
CALM = 4  # times the images that the alarm took, likewise
ODDS = (0.2, 0.5, 1.0, 2.0)  # log-odds beyond a bound that are bet on
NAMED = 3  # changes that an alarm names at most
CLEAR = 1000.0  # of N: a share is named that alone would make an alarm of N / CLEAR


@dataclass(frozen=True)
class ShareChange:
    """A share that left its bounds."""

    share: ExpectedShare  # it, with what was expected
    value: float  # of the images since it left them, as far as that can be told
    images: int  # how many of these it is a share of
    took: int  # how many there were in all


class Detector:
    """The test. Its arrays may have leading dimensions, for replicates of a simulation.

    Args:
        bounds: [S, 2], lower and upper, 0 to 1.
        every: N, images between false alarms on average, at least.
        replicates: Leading dimensions.
    """

    def __init__(self, bounds: Floats, every: float, replicates: tuple[int, ...] = ()) -> None:
        edge = np.asarray(bounds, float)[..., None]  # [S, 2, 1]
        bettable = (edge > 0) & (edge < 1)
        edge = np.where(bettable, edge, 0.5)
        odds = np.log(edge / (1 - edge)) + np.array([[-1.0], [1.0]]) * np.array(ODDS)
        beyond = 1 / (1 + np.exp(-odds))  # [S, 2, alternatives]
        miss, hit = np.log((1 - beyond) / (1 - edge)), np.log(beyond / edge)
        self._gain = np.where(bettable, np.stack([miss, hit]), 0.0)  # [2, S, 2, alternatives]
        self._rows, self._limit = np.arange(len(edge)), np.log(float(every))
        self._shape = (*replicates, *beyond.shape)
        self.restart()

    def restart(self) -> None:
        """Forget all images."""
        self.evidence = np.zeros(self._shape)  # logarithms of the running products
        self._counts = np.zeros((2, *self._shape[:-2]), np.int64)  # images of each share, and its hits
        self._before = np.zeros((2, *self._shape), np.int64)  # the same, when each product began
        self._began = np.zeros(self._shape, np.int64)  # after how many images
        self._count = 0

    def observe(self, hits: Floats) -> NDArray[np.bool_]:
        """Whether there is an alarm, [...]. hits: [..., S], 1 where the image is one of the share, 0
        where not, NaN where it says nothing of it."""
        hit, seen = (hits > 0).astype(np.intp), ~np.isnan(hits)
        all_seen = seen[..., None, None]
        again = (self.evidence <= 0) & all_seen
        np.copyto(self._before, self._counts[..., None, None], where=again)
        np.copyto(self._began, self._count, where=again)
        self._counts += (seen, hit)
        self._count += 1
        np.maximum(self.evidence, 0.0, out=self.evidence, where=all_seen)
        np.add(self.evidence, self._gain[hit, self._rows], out=self.evidence, where=all_seen)
        most = self.evidence.max(axis=(-3, -2, -1), initial=-np.inf)
        alarm = most >= self._limit
        if alarm.any():  # the average is not above the largest
            mean = np.exp(self.evidence - most[..., None, None, None]).mean(axis=(-3, -2, -1))
            alarm = most + np.log(mean) >= self._limit
        return np.asarray(alarm)

    def changes(self, shares: Sequence[ExpectedShare]) -> tuple[ShareChange, ...]:
        """The shares that left their bounds, the clearest first; one of each kind and exit."""
        strongest = self.evidence.max(axis=-1)  # [S, 2]
        named: dict[tuple[str, int], ShareChange] = {}
        for at in np.argsort(-strongest.max(axis=1), kind="stable").tolist():
            side = int(strongest[at].argmax())
            clear = max(self._limit - np.log(CLEAR), 0.0)  # 0: no evidence at all
            if strongest[at, side] <= clear or len(named) == NAMED:
                break
            # Of the bet on the least change, which begins anew least often: others pick extremes.
            images, hits = (self._counts[:, at] - self._before[:, at, side, 0]).tolist()
            took = self._count - int(self._began[at, side, 0])
            change = ShareChange(shares[at], hits / images, images, took)
            named.setdefault((change.share.of, change.share.exit), change)
        return tuple(named.values())


class Watch:
    """Sees every answer, in the order in which they go out. One thread uses it. every: images between
    false alarms, 0 for no alarm; tell: takes a line for whoever runs the server.

    Attributes:
        exits: Their numbers.
        expected: Of calibration.
        alarm: The changes of the alarm that stands.
        alarms: How many there were.

    Raises:
        OfframpError: What the bundle says to expect is not right.
    """

    def __init__(
        self, bundle: Bundle, every: int = YEAR, tell: Callable[[str], None] | None = None
    ) -> None:
        self._tell = tell or _to_stderr
        self.exits = tuple(stage.exit for stage in bundle.stages)
        self.expected = expected.read(bundle)
        shares = self.expected.shares
        bounds = np.array([(each.low, each.high) for each in shares])
        self._detector = Detector(bounds, every) if every else None
        self._stage = np.array([self.exits.index(each.exit) for each in shares])  # of each share
        self._below = np.array([np.nan if each.below is None else each.below for each in shares])
        self.alarm: tuple[ShareChange, ...] | None = None
        self.alarms = 0
        self._calm = self._needed = 0  # images since there was evidence for the alarm; until it ends

    def answered(self, answer: Answer) -> None:
        """See an answer before it goes out."""
        if self._detector is None:
            return
        stage = self.exits.index(answer.exit)
        scores = np.full(len(self.exits), np.nan)
        scores[: len(answer.scores)] = answer.scores
        sure = np.where(self._stage <= stage, scores[self._stage] < self._below, np.nan)
        self._calm += 1
        if self._detector.observe(np.where(np.isnan(self._below), self._stage == stage, sure)):
            stands, self.alarm = self.alarm is not None, self._detector.changes(self.expected.shares)
            self._detector.restart()
            self._calm = 0
            self._needed = max(LEAST, CALM * max((each.took for each in self.alarm), default=1))
            if not stands:
                self.alarms += 1
                self._tell(f"alarm: {' '.join(map(changed, self.alarm))}")
        elif self.alarm is not None and self._calm >= self._needed:
            self.alarm = None
            self._tell("the alarm has ended")


def changed(change: ShareChange) -> str:
    """A change in a sentence, with what calibration had."""
    share, now = change.share, percent(change.value)
    had = f"calibration had {percent(share.value)} ({100 * share.low:.1f} to {100 * share.high:.1f})."
    more = change.value > share.value
    if share.below is None:
        verb = "rose" if more else "fell"
        return f"The share of exit {share.exit} {verb} to {now}, of {change.images:,} images; {had}"
    sure = "less sure" if more else "surer"
    where = f"of {change.images:,} images there score below {share.below:.3g}"
    return f"Exit {share.exit} is {sure}: {now} {where}; {had}"


def _to_stderr(line: str) -> None:
    print(f"offramp: {line}", file=sys.stderr, flush=True)
