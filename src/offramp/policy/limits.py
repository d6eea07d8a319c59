"""The limits that a policy may be asked to keep: their names, what their values mean, how each is kept.

A new one is an entry of `LIMITS` and a name in `LimitKind` and in `Limits`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, assert_never

import numpy as np

from offramp import units
from offramp.errors import OfframpError

LossKind = Literal["wrong", "harm", "disagreement"]
LimitKind = Literal[
    "max-accuracy-loss",
    "min-accuracy",
    "max-mean-macs",
    "max-mean-latency",
    "max-p95-latency",
    "max-disagreement",
    "risk",
]


class Limits(TypedDict, total=False):
    """What may be asked of a policy, by keyword: one of the first seven; the last three go with `risk`.
    A value is a number, or a text such as "1%", "2M" or "5ms".

    max_accuracy_loss: against the final exit; 0.01 is one point in a hundred.  min_accuracy: 0 to 1.
    max_mean_macs: MACs an image, or "40%" of the plain network's.  max_mean_latency: seconds an image,
    on this machine, or by stage times of another.  max_p95_latency: seconds that 95 of 100 images keep,
    by such stage times.  max_disagreement: share of answers that may differ from the final exit's.
    risk: with a guarantee, the share of inputs that the full network has right and the policy wrong; or
    without labels, those that they answer differently.  confidence: of that guarantee, over draws of a
    calibration split; 0.95 by default.  on_average: bound the mean risk over such draws instead.

    >>> limits: offramp.Limits = {"risk": 0.1, "confidence": 0.9}
    >>> policy = fitted.calibrate(**limits)
    """

    max_accuracy_loss: float | str | None
    min_accuracy: float | str | None
    max_mean_macs: float | str | None
    max_mean_latency: float | str | None
    max_p95_latency: float | str | None
    max_disagreement: float | str | None
    risk: float | str | None
    confidence: float | str | None
    on_average: bool
    without_labels: bool


@dataclass(frozen=True)
class LimitRule:
    """unit: of its value.  kept: by what a policy is chosen: a `loss` against the full network, which is
    none of its own; its `accuracy`; a `budget`; a `guarantee`.  stricter, looser: what to ask for where
    a policy lets everything leave, and where it lets nothing.  loss: that candidates keep low, where
    labels are read.  usual: a share to write, for example.  spent, noted: of a budget, the fields of
    `Performance` and of `Chosen` that say what a policy takes of it.  stages: of a budget of time,
    which number of each stage's rounds it goes by.
    """

    unit: Literal["share", "MACs", "time"]
    kept: Literal["loss", "accuracy", "budget", "guarantee"]
    stricter: str
    looser: str
    loss: LossKind = "wrong"
    usual: float = 0.01
    spent: str = ""
    noted: str = ""
    stages: Literal["mean", "p95"] | None = None


LIMITS: Mapping[LimitKind, LimitRule] = {
    "max-accuracy-loss": LimitRule("share", "loss", "a smaller loss", "a larger loss"),
    "min-accuracy": LimitRule("share", "accuracy", "a higher accuracy", "a lower accuracy", usual=0.9),
    "max-mean-macs": LimitRule(
        "MACs", "budget", "more MACs", "fewer MACs", spent="macs", noted="mean_macs"
    ),
    "max-mean-latency": LimitRule(
        "time", "budget", "more time", "less time", spent="seconds", noted="mean_seconds", stages="mean"
    ),
    "max-p95-latency": LimitRule(
        "time", "budget", "more time", "less time", spent="late", noted="p95_seconds", stages="p95"
    ),
    "max-disagreement": LimitRule(
        "share", "loss", "a smaller disagreement", "a larger disagreement", loss="disagreement"
    ),
    "risk": LimitRule("share", "guarantee", "a smaller risk", "a larger risk", loss="harm"),
}
CONFIDENCE = LimitRule("share", "guarantee", "a higher confidence", "a lower confidence", usual=0.95)


def words(name: str) -> str:
    """A limit's name as a message says it, which both `--max-mean-macs` and `max_mean_macs` are.

    >>> words("max-mean-macs"), words("on_average")
    ('max mean MACs', 'on average')
    """
    return re.sub("[-_]", " ", name).replace("macs", "MACs")


def check_times(kind: LimitKind, given: bool, here: bool = True) -> None:
    """Raises OfframpError for a limit on time without the times that it goes by. given: stage times of a
    device.  here: whether this machine's, which have no 95th percentiles, will do too."""
    stages = LIMITS[kind].stages
    if stages is not None and not given and not (here and stages == "mean"):
        raise OfframpError(f"{words(kind)} goes by times of a device; give its stage times")


def number(name: str, limit: LimitRule, value: Any, plain_macs: int) -> float:
    """What a limit of that name is, given as a number or a text: a share, MACs or seconds. plain_macs:
    of the network without early exits. Raises OfframpError for what is none, or out of its range."""
    if not isinstance(value, int | float | np.number | str):
        raise OfframpError(f"{words(name)} must be a number, got {value!r}")
    match limit.unit:
        case "share":
            return _share(words(name), limit, value)
        case "MACs":
            found = _macs(words(name), value, plain_macs)
        case "time":
            found = _seconds(words(name), value)
        case _:
            assert_never(limit.unit)
    if not 0 < found < math.inf:
        raise OfframpError(f"{words(name)} must be above 0, got {found:g}")
    return found


def _share(name: str, limit: LimitRule, value: Any) -> float:
    found = units.share(value, name, limit.usual) if isinstance(value, str) else float(value)
    if limit.kept == "loss" and found >= 1:
        raise OfframpError(f"{name} is a share of all images; for one point in a hundred give 0.01")
    inside = limit.kept == "guarantee"
    if not (0 < found < 1 if inside else 0 <= found <= 1):
        span = "between 0 and 1" if inside else "from 0 to 1"
        raise OfframpError(f"{name} must be a share {span}, such as {limit.usual:g}; got {found:g}")
    return found


def _seconds(name: str, value: Any) -> float:
    return units.parse(value, units.TIME, name) if isinstance(value, str) else float(value)


def _macs(name: str, value: Any, plain_macs: int) -> float:
    """MACs, or a share of the plain network's, as text."""
    if isinstance(value, str):
        percent = units.read(value, units.PERCENT)
        if percent is not None:
            return percent * (plain_macs / 100)
        return units.parse(value, units.MACS, name, also="a share such as 40%")
    if 0 < value <= 1:
        raise OfframpError(
            f"{name} is a number of MACs, got {value:g}; for a share of the plain network's write "
            f"'{100 * value:g}%'"
        )
    return float(value)
