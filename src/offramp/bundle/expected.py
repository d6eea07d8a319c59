"""What calibration leads to expect of images in service: shares by exit, scores, compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from offramp.errors import OfframpError, in_line
from offramp.policy import quality, scoring
from offramp.policy.candidates import POINTS, RUN_UP, where_left
from offramp.policy.policy import Policy

if TYPE_CHECKING:
    from offramp.bundle.runtime import Bundle
    from offramp.study.trained import Trained

FILE = "expected.json"
FAILING = 0.01  # of calibrations: those by whose draw a bound below is wrong
CHOICES = POINTS + RUN_UP + 1  # policies that calibration may choose from; its bounds hold for each
QUARTERS = (0.25, 0.5, 0.75)
FEWEST = 40  # images that reach an exit, for its scores to be worth bounds


@dataclass(frozen=True)
class ExpectedShare:
    """A share of images, and its bounds where images are drawn as those of calibration."""

    # `exit`: images that leave there. `score`: those that are less sure than `below` there, of those
    # that reach it
    of: Literal["exit", "score"]
    value: float  # its value on the calibration images
    low: float  # its lower bound, of Clopper and Pearson, or of Hoeffding where classes are weighted
    high: float  # the upper one
    exit: int  # the number of the exit
    below: float | None = None  # a score, of `score` alone


@dataclass(frozen=True)
class Expected:
    """A policy on its calibration images, as `expected.json` has it.

    All bounds hold together but for one calibration of a hundred: FAILING, which both sides of all
    shares and all policies that calibration chose from have in common.
    """

    images: int  # how many
    shares: tuple[ExpectedShare, ...]  # what a server watches
    exits: tuple[int, ...]  # the numbers of the bundle's exits
    confidence: float  # mean of the answers
    compute: float  # mean MACs of an image, as a share of the plain network's

    def as_json(self) -> dict[str, Any]:
        return {"format": 1, **asdict(self)}

    def of_exit(self, exit: int) -> ExpectedShare:
        """The share of images that leave there."""
        return next(each for each in self.shares if (each.of, each.exit) == ("exit", exit))


def expect(rule: Policy, trained: Trained, exits: Sequence[int]) -> Expected:
    """What the calibration images of a trial come to under a policy. exits: those of the bundle. Scores
    are cut at the quarters of validation, which is not what is counted here."""
    places = [rule.exits.index(number) for number in exits]
    rows, chosen = trained.calibration, rule.calibration.chosen
    weights = None
    if chosen is not None and chosen.class_shares is not None:
        images_of = np.bincount(rows.labels, minlength=len(chosen.class_shares))
        weights = np.asarray(chosen.class_shares)[rows.labels] / images_of[rows.labels]
        weights = weights / weights.sum()
    tail = FAILING / (2 * len(exits) * (1 + len(QUARTERS)) * CHOICES)
    left = np.searchsorted(places, rule.leaves(rows.logits))
    stages = range(len(exits))

    def bounds(flags: Any) -> tuple[float, float, float]:
        if weights is None:
            share = quality.share(int(flags.sum()), len(flags), 1 - 2 * tail)
            return share.value, share.low, share.high
        value = min(float(weights @ flags), 1.0)  # up to rounding it may be above
        reach = float(np.sqrt(-np.log(tail) / 2 * (weights**2).sum()))
        return value, max(value - reach, 0.0), min(value + reach, 1.0)

    shares = [ExpectedShare("exit", *bounds(left == at), exits[at]) for at in stages]
    sure = _scores(rule, rows.logits)[:, places]
    others = np.searchsorted(places, rule.leaves(trained.validation.logits))
    others_sure = _scores(rule, trained.validation.logits)[:, places]
    for at in stages if weights is None else stages[:1]:  # the weights are those of all images
        here, validation = sure[left >= at, at], others_sure[others >= at, at]
        if min(len(here), len(validation)) < FEWEST:
            continue
        for cut in dict.fromkeys(np.quantile(validation, QUARTERS, method="nearest").tolist()):
            if np.isfinite(cut) and (validation < cut).any():
                shares.append(ExpectedShare("score", *bounds(here < cut), exits[at], cut))
    own = rule.takes_all is None
    answering = scoring.all_answer_logits(rule.score, rows.logits[:, places], final=own)
    warmth = [1.0 if rule.temperatures is None else rule.temperatures[i] for i in places]
    confidence = scoring.certainties(answering, warmth, rule.several)
    spent = np.asarray(trained.costs.leaving(places), float) / trained.plain_macs
    return Expected(
        len(left),
        tuple(shares),
        tuple(exits),
        float(np.average(where_left(np.nan_to_num(confidence), left), weights=weights)),
        float(np.average(spent[left], weights=weights)),
    )


def _scores(rule: Policy, logits: Any) -> Any:
    return np.asarray(scoring.scores(rule.score, logits, rule.temperatures, rule.gates), float)


def read(bundle: Bundle) -> Expected:
    """What a bundle says to expect. Raises OfframpError for one that does not say it."""
    path = bundle.path / FILE
    try:
        return TypeAdapter(Expected).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise OfframpError(f"{path} is damaged ({in_line(error)}); export the bundle again") from None
