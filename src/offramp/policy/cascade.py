"""Cascades: ordered stages, each an exit's answer and what must run to have it.

A stage starts from the stage before (an early exit of the same network) or from the image (another
network, or the same one at other pixels). So a plain network is a cascade of one stage, an early-exit
network one whose stages are its exits, and a mixture has exits in one of several networks. Each stage
answers alone or with the answers so far: the mean of their log-probabilities, normalized.

Everything here is a function of the members' logits; no network is run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

Floats = NDArray[np.float64]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]

Sureness = Literal["confidence", "margin"]
MOST_NETWORKS = 3
WAYS: tuple[tuple[bool, Sureness], ...] = (
    (False, "confidence"), (False, "margin"), (True, "confidence"), (True, "margin"),
)  # fmt: skip
"""Whether stages answer together, and how sure they are."""
SHARES = tuple(np.linspace(0.04, 1, 25).tolist())  # of all images, that go on past a stage


@dataclass(frozen=True)
class Member:
    """An exit of a network, as far as a choice needs it: the final one, or an early one."""

    network: str  # its name; members of one network share what runs before them
    depth: int  # its place among the exits of the network, from 1
    cost: float  # of the way from the image to its answer: MACs, or milliseconds


@dataclass(frozen=True)
class Cascade:
    """Which members answer in which order, and how.

    Attributes:
        stages: Members; those of one network lie together, in order of depth.
        combined: Whether a stage answers with those before it.
        sureness: What is compared with a threshold: the highest probability, or its lead.
    """

    stages: tuple[Member, ...]
    combined: bool = False
    sureness: Sureness = "confidence"

    @property
    def costs(self) -> tuple[float, ...]:
        """What each stage adds for an image that reaches it."""
        added = [self.stages[0].cost]
        for before, stage in itertools.pairwise(self.stages):
            shared = before.cost if stage.network == before.network else 0.0
            added.append(stage.cost - shared)
        return tuple(added)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a cascade comes to on the images of a split.

    Attributes:
        right: [N], whether each image is answered right.
        stages: [N], where each image leaves, from 0.
        cost: The mean over images.
    """

    right: Bools
    stages: Ints
    cost: float

    @property
    def accuracy(self) -> float:
        """A share."""
        return float(self.right.mean())


def cascades(members: Sequence[Member], most_stages: int = 3) -> Iterator[Cascade]:
    """Every cascade of at most three networks and `most_stages` stages, once for each way to answer.

    Networks stand in order of what they cost in full: to ask a larger one first never pays.
    """
    full: dict[str, float] = {}
    for member in members:
        full[member.network] = max(full.get(member.network, 0.0), member.cost)
    ranked = sorted(members, key=lambda m: (full[m.network], m.network, m.depth))
    for count in range(1, most_stages + 1):
        for stages in itertools.combinations(ranked, count):
            if len({stage.network for stage in stages}) > MOST_NETWORKS:
                continue
            if count == 1:
                yield Cascade(stages)
                continue
            for combined, sureness in WAYS:
                yield Cascade(stages, combined, sureness)


def answers(logits: Sequence[Floats], combined: bool) -> list[Floats]:
    """Log-probabilities [N, C] with which each stage answers. logits: [N, C] of each stage."""
    alone = [log_softmax(each, axis=-1) for each in logits]
    if not combined:
        return alone
    so_far, together = np.zeros_like(alone[0]), []
    for count, each in enumerate(alone, start=1):
        so_far = so_far + each
        together.append(log_softmax(so_far / count, axis=-1))
    return together


def sure(log_probabilities: Floats, sureness: Sureness) -> Floats:
    """[N], from 0 to 1: how sure an answer is."""
    if sureness == "confidence":
        return np.asarray(np.exp(log_probabilities.max(axis=-1)))
    second, first = np.partition(log_probabilities, -2, axis=-1)[:, -2:].T
    return np.asarray(np.exp(first) - np.exp(second))


def shares_within(cascade: Cascade, budget: float) -> Iterator[tuple[float, ...]]:
    """Shares of all images that go on past each stage but the last, at which the mean cost is `budget`;
    where that pays for all stages, all go on. Of two numbers, the first is one of `SHARES`."""
    first, *later = cascade.costs
    left = budget - first
    if left < -1e-9 * budget:
        return
    yield from _shares(later, left, 1.0)


def _shares(costs: Sequence[float], left: float, most: float) -> Iterator[tuple[float, ...]]:
    if not costs:
        yield ()
    elif len(costs) == 1:
        if left <= costs[0] * most or most == 1:
            yield (min(left / costs[0], most),)
    else:
        for share in SHARES:
            rest = left - share * costs[0]
            if share <= most and rest >= 0:
                yield from ((share, *more) for more in _shares(costs[1:], rest, share))


def thresholds(
    stages: Sequence[Floats], sureness: Sureness, shares: Sequence[float]
) -> tuple[float, ...]:
    """The thresholds past which these shares of images go on; no label is looked at.

    Args:
        stages: Log-probabilities of each stage [N, C].
        shares: Of all images, one a stage but the last.

    Returns:
        One a stage but the last; an image stays where it is at least as sure.
    """
    rows = len(stages[0])
    going, chosen = np.ones(rows, dtype=bool), []
    for stage, share in zip(stages[:-1], shares, strict=True):
        score = sure(stage, sureness)
        count = min(round(share * rows), int(going.sum()))
        ordered = np.sort(np.where(going, score, np.inf))
        chosen.append(float(ordered[count]) if count < rows else np.inf)
        going &= score < chosen[-1]
    return tuple(chosen)


def outcome(
    cascade: Cascade, stages: Sequence[Floats], chosen: Sequence[float], labels: Ints
) -> Outcome:
    """What becomes of images under these thresholds. stages: as `answers` returns them."""
    rows = len(labels)
    going, where = np.ones(rows, dtype=bool), np.zeros(rows, dtype=np.int64)
    right, cost = np.zeros(rows, dtype=bool), 0.0
    for number, (stage, added) in enumerate(zip(stages, cascade.costs, strict=True)):
        cost += added * float(going.mean())
        leaves = going.copy()
        if number < len(chosen):
            leaves &= sure(stage, cascade.sureness) >= chosen[number]
        right[leaves] = stage.argmax(axis=-1)[leaves] == labels[leaves]
        where[leaves] = number
        going &= ~leaves
    return Outcome(right, where, cost)


def of_stages(cascade: Cascade, logits: Mapping[Member, Floats]) -> list[Floats]:
    """Log-probabilities with which the stages of a cascade answer, from the members' logits."""
    return answers([logits[stage] for stage in cascade.stages], cascade.combined)
