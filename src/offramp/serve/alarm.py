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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.bundle.expected import ExpectedShare

Floats = NDArray[np.floating]
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
        named: dict[tuple[str, int | None], ShareChange] = {}
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
