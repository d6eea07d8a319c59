"""The limits that a policy may be asked to keep: `LIMITS` has one entry for each."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from offramp import units
from offramp.errors import OfframpError

if TYPE_CHECKING:
    from offramp.policy.calibrate import Performance

LossKind = Literal["wrong", "harm", "disagreement", "label", "miss", "label-harm", "miss-harm"]
LimitKind = str  # a name in `LIMITS`
# A number, or a text such as "1%", "2M" or "5ms"; with what the command line calls it.
ShareText = Annotated[float | str | None, "SHARE"]
MacsText = Annotated[float | str | None, "MACS"]
TimeText = Annotated[float | str | None, "TIME"]


class Limits(TypedDict, total=False):
    """What may be asked of a policy, by keyword: exactly one limit.

    A value is a number, or a text such as "1%", "2M" or "5ms"; None counts as not given. A time is in
    seconds. `confidence` and `on_average` go with a guarantee, `without_labels` with `risk`.

    Attributes:
        max_accuracy_loss: Accuracy to give up against the final exit: 0.01 or 1% is one point.
        min_accuracy: Accuracy to reach, such as 0.9 or 90%.
        max_mean_macs: MACs an image on average: 1.5M, or 40% of the plain network's.
        max_mean_latency: Time an image on average, by --stage-times or (not of build) measured here,
            such as 5ms.
        max_p95_latency: Time within which 95 of 100 images are answered, by --stage-times, such as 5ms.
        max_disagreement: Share of answers that may differ from the final exit's.
        risk: With a guarantee: share of images that only the full network gets right.
        max_hamming_loss: Of several labels an image: share of labels to get wrong beyond the final
            exit's.
        max_missed_labels: Of several labels an image: share of its labels to miss beyond the final
            exit's.
        hamming_risk: With a guarantee: share of labels that only the full network gets right.
        missed_risk: With a guarantee: share of an image's labels that only the full network finds.
        confidence: Of a guarantee: how sure it is.  [default: 0.95]
        on_average: Of a guarantee: it holds on average only.
        without_labels: Count any answer other than the full network's as wrong.

    Example:
        >>> limits: offramp.Limits = {"risk": 0.1, "confidence": 0.9}
        >>> policy = fitted.calibrate(**limits)
    """

    max_accuracy_loss: ShareText
    min_accuracy: ShareText
    max_mean_macs: MacsText
    max_mean_latency: TimeText
    max_p95_latency: TimeText
    max_disagreement: ShareText
    risk: ShareText
    max_hamming_loss: ShareText
    max_missed_labels: ShareText
    hamming_risk: ShareText
    missed_risk: ShareText
    confidence: ShareText
    on_average: bool
    without_labels: bool


@dataclass(frozen=True)
class Limit:
    """What a limit means and how it is kept."""

    # how a policy is chosen: by its `loss` against the full network, which has none; by its accuracy; by
    # what it spends, whatever it loses; or by a guarantee
    by: Literal["loss", "accuracy", "budget", "guarantee"]
    looser: str  # what to ask for where a policy lets nothing leave
    unit: Literal["SHARE", "MACS", "TIME"] = "SHARE"  # of its value
    loss: LossKind = "wrong"  # what candidates keep low, where labels are read
    example: float = 0.01  # a value for messages
    # what a policy spends of a budget, of its performance on a split; None where it was not measured
    spent: Callable[[Performance], float | None] = lambda _: None
    noted: str = ""  # the name in a policy file's `chosen` under which that is written
    phrase: str = "takes {} on average"  # of a network that spends "{}"
    # for a budget of time, the number of each stage's rounds that it goes by
    stages: Literal["mean", "p95"] | None = None

    @property
    def several(self) -> bool:
        """Whether it is for images with several labels each."""
        return self.loss.partition("-")[0] in ("label", "miss")

    def read(self, name: str, value: Any, plain_macs: int = 1) -> float:
        """A value as a share, MACs or seconds. name: in words; plain_macs: of the network without early
        exits, which a percentage of MACs is of. Raises OfframpError for a value out of range."""
        import numpy as np  # here: each start of the command line reads this file

        if not isinstance(value, int | float | np.number | str):
            raise OfframpError(f"{name} must be a number, got {value!r}")
        text = value if isinstance(value, str) else None
        amount = float(value) if text is None else self._parsed(name, text, plain_macs)
        if self.unit == "SHARE":
            if self.by == "loss" and amount >= 1:
                raise OfframpError(f"{name} is a share, below 1; for one point in a hundred give 0.01")
            inside = self.by == "guarantee"
            if not (0 < amount < 1 if inside else 0 <= amount <= 1):
                span = "between 0 and 1" if inside else "from 0 to 1"
                example = f"such as {self.example:g}; got {amount:g}"
                raise OfframpError(f"{name} must be a share {span}, {example}")
        elif self.unit == "MACS" and text is None and 0 < amount <= 1:
            raise OfframpError(
                f"{name} is a number of MACs, got {amount:g}; for a share of the plain network's write "
                f"'{100 * amount:g}%'"
            )
        elif not 0 < amount < math.inf:
            raise OfframpError(f"{name} must be above 0, got {amount:g}")
        return amount

    def _parsed(self, name: str, text: str, plain_macs: int) -> float:
        if self.unit == "SHARE":
            return units.share(text, name, self.example)
        if self.unit == "TIME":
            return units.parse(text, units.TIME, name)
        percent = units.read(text, units.PERCENT)
        if percent is not None:
            return percent * (plain_macs / 100)
        return units.parse(text, units.MACS, name, also="a share such as 40%")

    def write(self, value: float) -> str:
        """The value as messages have it."""
        if self.unit == "TIME":
            return f"{float(f'{1000 * value:.4g}'):,.12g} ms"  # 3,600,000 ms, and never 3.6e+06
        return f"{value:g}" if self.unit == "SHARE" else f"{value:,.0f} MACs"

    def at_least(self, value: float) -> str:
        """What messages have of a value, rounded up, so that whoever asks for that much has enough."""
        step = 10.0 ** (math.floor(math.log10(value or 1.0)) - 3) if self.unit == "TIME" else 1.0
        return self.write(math.ceil(value / step - 1e-9) * step)


def _budget(spent: Callable[[Performance], float | None], noted: str, **more: Any) -> Limit:
    return Limit("budget", "less time", "TIME", spent=spent, noted=noted, **more)


LIMITS: Mapping[LimitKind, Limit] = {
    "max-accuracy-loss": Limit("loss", "a larger loss"),
    "min-accuracy": Limit("accuracy", "a lower accuracy", example=0.9),
    "max-mean-macs": Limit(
        "budget", "fewer MACs", "MACS", spent=lambda policy: policy.macs, noted="mean_macs"
    ),
    "max-mean-latency": _budget(lambda policy: policy.seconds, "mean_seconds", stages="mean"),
    "max-p95-latency": _budget(
        lambda policy: policy.late, "p95_seconds", phrase="answers 95 of 100 in {} each", stages="p95"
    ),
    "max-disagreement": Limit("loss", "a larger disagreement", loss="disagreement"),
    "risk": Limit("guarantee", "a larger risk", loss="harm"),
    "max-hamming-loss": Limit("loss", "a larger share of labels", loss="label"),
    "max-missed-labels": Limit("loss", "a larger share of labels", loss="miss"),
    "hamming-risk": Limit("guarantee", "a larger risk", loss="label-harm"),
    "missed-risk": Limit("guarantee", "a larger risk", loss="miss-harm"),
}
CONFIDENCE = Limit("guarantee", "a lower one", example=0.95)
COMPANIONS = ("confidence", "on-average", "without-labels")  # what goes with a limit


def words(name: str) -> str:
    """A limit's name in messages: `max mean MACs` of `max-mean-macs` and `max_mean_macs` alike."""
    return re.sub("[-_]", " ", name).replace("macs", "MACs")


def check_times(kind: LimitKind, device: bool, here: bool = True) -> None:
    """Raise OfframpError for a limit on time that lacks the times that it goes by: those of a `device`,
    or, for limits on the mean and if they will do `here`, those of this machine."""
    stages = LIMITS[kind].stages
    if stages is not None and not device and not (here and stages == "mean"):
        first = "" if here else ", or build for another limit first and calibrate"
        raise OfframpError(f"{words(kind)} goes by times of a device; give its stage times{first}")


def refuse_below(kind: LimitKind, value: float, least: float, doubts: Sequence[str] = ()) -> None:
    """Raise OfframpError for a budget below the least that a policy can spend. doubts: on that."""
    limit = LIMITS[kind]
    if limit.by == "budget" and value < least:
        remedy = "place an exit earlier" + (" or take another batch" if limit.stages else "")
        raise OfframpError(
            f"no policy {limit.phrase.format(f'at most {limit.write(value)}')}; the least is "
            f"{limit.at_least(least)}, so allow that or {remedy}" + "".join(f"; but {d}" for d in doubts)
        )
