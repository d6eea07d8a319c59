"""Accuracy against compute of a trained network, at every threshold, and at equal compute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NetAnswers:
    """What the E exits of a network answered on N images."""

    sure: NDArray[np.floating]  # score of each exit's answer, such as its confidence, [N, E]
    right: NDArray[np.bool_]  # whether it is right, [N, E]
    macs: tuple[float, ...]  # of an image that leaves at each exit, ascending, [E]
    # a key of the images and their labels: networks with the same key answered the same images, an empty
    # one agrees with none
    images: str = ""
    source: str = ""  # a key of the weights

    @cached_property
    def curve(self) -> tuple[Floats, Floats, Floats]:
        """Thresholds (falling, from infinity), mean MACs of an image, and accuracy, [T] each: an image
        leaves at the first exit whose score is at least the threshold, else at the last."""
        rows, exits = self.sure.shape
        macs = np.asarray(self.macs, dtype=float)
        sure = np.where(np.isnan(self.sure), -np.inf, self.sure.astype(float))
        highest = np.maximum.accumulate(sure, axis=1)
        later = np.full(rows, exits - 1)
        events: list[Floats] = []
        for exit in range(exits - 2, -1, -1):
            rises = highest[:, exit] > (highest[:, exit - 1] if exit else -np.inf)
            at, to = np.flatnonzero(rises), later[rises]
            gain = self.right[at, exit].astype(float) - self.right[at, to]
            events.append(np.stack([highest[at, exit], macs[exit] - macs[to], gain]))
            later[rises] = exit
        start = np.array([[np.inf], [macs[-1] * rows], [float(self.right[:, -1].sum())]])
        thresholds, spent, hits = np.concatenate([start, *events], axis=1)
        order = np.argsort(-thresholds, kind="stable")
        thresholds = thresholds[order]
        last = np.append(thresholds[1:] != thresholds[:-1], True)  # equal scores leave together
        spent, hits = (np.cumsum(total[order])[last] / rows for total in (spent, hits))
        return thresholds[last], spent, hits

    @property
    def cheapest(self) -> float:
        """Mean MACs where every image leaves as early as any threshold lets it."""
        return float(self.curve[1][-1])

    def accuracy(self, macs: float | Floats) -> Floats:
        """Accuracy at a mean number of MACs, on the line between the two nearest thresholds; NaN below
        `cheapest`. Which threshold that is follows from scores alone: no label is looked at."""
        return _on_curve(self.curve, macs)

    def area(self, low: float, high: float) -> float:
        """Mean accuracy over all mean numbers of MACs from `low` to `high`: accuracy against compute in
        one number, 0 to 1. Below `cheapest`, that of the cheapest setting counts, which spends more; NaN
        where that is all there is."""
        _, spent, hits = (side[::-1] for side in self.curve)
        if not low < high or spent[0] > high:
            return float("nan")
        inner = spent[(spent > low) & (spent < high)]
        at = np.concatenate([[low], inner, [high]])
        return float(np.trapezoid(np.interp(at, spent, hits), at) / (high - low))

    def on_images(self, macs: float) -> Floats:
        """What each image adds to `accuracy(macs)`, [N], whose mean it is.

        An image that costs more than the mean leaves less for others, so its surplus counts at the slope
        of the curve: the differences of these values between two networks vary as the difference in
        accuracy at equal compute does, thresholds included.

        Args:
            macs: Of an image, on average.
        """
        thresholds, spent, _ = self.curve
        if macs >= spent[0]:
            return self.right[:, -1].astype(float)
        threshold = thresholds[int(np.argmax(spent <= macs))]
        leaving = self.sure >= threshold
        leaving[:, -1] = True
        at = leaving.argmax(axis=1)
        rows = np.arange(len(at))
        near = 0.05 * (spent[0] - spent[-1])  # wide enough that single images do not make the slope
        low, high = max(macs - near, float(spent[-1])), min(macs + near, float(spent[0]))
        slope = float((self.accuracy(high) - self.accuracy(low)) / (high - low))
        surplus = np.asarray(self.macs, dtype=float)[at] - macs
        return np.asarray(self.right[rows, at] - slope * surplus)


@dataclass(frozen=True, eq=False)
class Mixture:
    """K plain networks, and a coin that sends each image to one of two that are neighbors by their MACs.

    Its expectation: a coin that sends a share of images to the second has the mean compute of both by
    that share, and their mean accuracy. So accuracy against compute is a straight line between them.
    """

    right: NDArray[np.bool_]  # whether each network is right, [N, K]
    macs: tuple[float, ...]  # of each, ascending, [K]
    # images, source: as of `NetAnswers`
    images: str = ""
    source: str = ""

    @property
    def curve(self) -> tuple[Floats, Floats, Floats]:
        """Places among the networks (falling), mean MACs of an image, and accuracy, [K] each."""
        spent, hits = np.asarray(self.macs, dtype=float), self.right.mean(axis=0)
        return np.arange(len(spent), dtype=float)[::-1], spent[::-1], hits[::-1]

    @property
    def cheapest(self) -> float:
        """MACs of the first network."""
        return float(self.macs[0])

    def accuracy(self, macs: float | Floats) -> Floats:
        """Accuracy at a mean number of MACs; NaN below `cheapest`."""
        return _on_curve(self.curve, macs)

    def on_images(self, macs: float) -> Floats:
        """How probably each image is answered right at a mean number of MACs, [N]."""
        place = float(np.interp(macs, self.macs, np.arange(len(self.macs))))
        first, second = math.floor(place), math.ceil(place)
        share = place - first
        return np.asarray((1 - share) * self.right[:, first] + share * self.right[:, second])


AnyAnswers = NetAnswers | Mixture


def _on_curve(curve: tuple[Floats, Floats, Floats], macs: float | Floats) -> Floats:
    """Accuracy of a curve at a mean number of MACs; NaN where it cannot spend so little."""
    _, spent, hits = curve
    return np.asarray(np.interp(macs, spent[::-1], hits[::-1], left=np.nan))


def coin(networks: Sequence[NetAnswers]) -> Mixture:
    """A mixture of plain networks, ascending by their MACs."""
    right, macs, images = _together(networks)
    return Mixture(right, macs, images, "+".join(each.source for each in networks))


def then(first: NetAnswers, second: NetAnswers) -> NetAnswers:
    """A cascade of two plain networks: each image asks the first, and pays for the second too where the
    first is not sure enough."""
    right, (small, large), images = _together((first, second))
    sure = np.stack([first.sure[:, -1], second.sure[:, -1]], axis=1)
    return NetAnswers(
        sure, right, (small, small + large), images, source=f"{first.source}>{second.source}"
    )


def _together(networks: Sequence[NetAnswers]) -> tuple[NDArray[np.bool_], tuple[float, ...], str]:
    """Whether each is right, [N, K], the MACs of each, and the key of the images if it is one."""
    keys = {each.images for each in networks}
    right = np.stack([each.right[:, -1] for each in networks], axis=1)
    return right, tuple(each.macs[-1] for each in networks), keys.pop() if len(keys) == 1 else ""


def hull(points: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Names of the points that no mixture of others beats, ascending by compute. points: compute and
    accuracy by name.

    Example:
        >>> hull({"small": (1, 0.6), "poor": (2, 0.61), "full": (3, 0.8), "worse": (4, 0.7)})
        ('small', 'full')
    """
    best: list[str] = []
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1], name)):
        x, y = points[name]
        if best and y <= points[best[-1]][1]:
            continue
        while len(best) > 1:
            (a, b), (c, d) = points[best[-2]], points[best[-1]]
            if (d - b) * (x - a) > (y - b) * (c - a):
                break
            best.pop()
        best.append(name)
    return tuple(best)


def levels(macs: Sequence[Sequence[float]], count: int = 5) -> tuple[float, ...]:
    """Amounts of compute that all networks can spend: evenly from the dearest first exit to the cheapest
    last one. macs: of each network by exit."""
    low, high = max(m[0] for m in macs), min(m[-1] for m in macs)
    return tuple(np.linspace(low, high, count).tolist()) if high > low else (high,)
