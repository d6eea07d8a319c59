"""The limits that a policy may be asked to keep.

A limit is one entry of `Limits`: a name that callers give by keyword, and the `LimitRule` that says what
its value means, how it is kept, and what the command line says of it. `LIMITS` is read from there, and
whoever needs to know something of a limit asks its rule.
"""

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


@dataclass(frozen=True)
class LimitUnit:
    """What the value of a limit counts."""

    metavar: str  # the value's name in the help of the command line
    # the value of a number or a text, out of: the limit's name in words, its rule, what was given, and
    # the MACs of the network without early exits. Raises OfframpError for a value out of range
    read: Callable[[str, "LimitRule", float | str, int], float]
    write: Callable[[float], str]  # the value as messages have it
    # how far apart values near this one are that messages tell apart
    step: Callable[[float], float] = lambda _: 1.0

    def at_least(self, value: float) -> str:
        """What messages have of a value, rounded up, so that whoever asks for that much has enough."""
        step = self.step(value)
        return self.write(math.ceil(value / step - 1e-9) * step)


@dataclass(frozen=True)
class Budget:
    """What a policy may spend of something, whatever it loses."""

    # what a policy spends, of its performance on a split; None where that was not measured
    spent: "Callable[[Performance], float | None]"
    noted: str  # the name in a policy file's `chosen` under which that is written
    phrase: str  # of a network that spends "{}", as sentences go on: "takes {} on average"
    remedy: str = "place an exit earlier"  # what helps where no policy keeps the budget
    # for a budget of time, the number of each stage's rounds that it goes by
    stages: Literal["mean", "p95"] | None = None


@dataclass(frozen=True)
class LimitRule:
    """What a limit means and how it is kept."""

    help: str  # what the command line says of it
    unit: LimitUnit  # what its value counts
    # how a policy is chosen: by its `loss` against the full network, which has none; by its `accuracy`;
    # by a budget; or by a `guarantee`
    by: Literal["loss", "accuracy", "guarantee"] | Budget
    looser: str  # what to ask for where a policy lets nothing leave
    loss: LossKind = "wrong"  # what candidates keep low, where labels are read
    example: float = 0.01  # a value for messages
    several: bool = False  # whether it is for images with several labels each

    @property
    def metavar(self) -> str:
        return self.unit.metavar

    @property
    def stages(self) -> Literal["mean", "p95"] | None:
        """The number of each stage's rounds that a budget of time goes by; None for other limits."""
        return self.by.stages if isinstance(self.by, Budget) else None


@dataclass(frozen=True)
class Companion:
    """An option that goes with the limit `risk`. help, metavar: on the command line; a flag has no
    metavar."""

    help: str
    metavar: str = ""


def _share(name: str, rule: LimitRule, value: float | str, _: int) -> float:
    share = units.share(value, name, rule.example) if isinstance(value, str) else float(value)
    if rule.by == "loss" and share >= 1:
        raise OfframpError(f"{name} is a share, below 1; for one point in a hundred give 0.01")
    inside = rule.by == "guarantee"
    if not (0 < share < 1 if inside else 0 <= share <= 1):
        span = "between 0 and 1" if inside else "from 0 to 1"
        raise OfframpError(f"{name} must be a share {span}, such as {rule.example:g}; got {share:g}")
    return share


def _macs(name: str, _: LimitRule, value: float | str, plain_macs: int) -> float:
    """MACs, or a share of the plain network's, as text."""
    if isinstance(value, str):
        percent = units.read(value, units.PERCENT)
        macs = units.parse(value, units.MACS, name, also="a share such as 40%") if percent is None else 0
        return _positive(name, macs if percent is None else percent * (plain_macs / 100))
    if 0 < value <= 1:
        raise OfframpError(
            f"{name} is a number of MACs, got {value:g}; for a share of the plain network's write "
            f"'{100 * value:g}%'"
        )
    return _positive(name, float(value))


def _seconds(name: str, _: LimitRule, value: float | str, __: int) -> float:
    seconds = units.parse(value, units.TIME, name) if isinstance(value, str) else float(value)
    return _positive(name, seconds)


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise OfframpError(f"{name} must be above 0, got {value:g}")
    return value


SHARE = LimitUnit("SHARE", _share, "{:g}".format)
MACS = LimitUnit("MACS", _macs, "{:,.0f} MACs".format)
TIME = LimitUnit(
    "TIME",
    _seconds,
    lambda seconds: f"{float(f'{1000 * seconds:.4g}'):,.12g} ms",  # 3,600,000 ms, and never 3.6e+06
    lambda seconds: 10.0 ** (math.floor(math.log10(seconds or 1.0)) - 3),
)
SLOW = "place an exit earlier or take another batch"
CONFIDENCE = LimitRule("", SHARE, "guarantee", "a lower one", example=0.95)


class Limits(TypedDict, total=False):
    """What may be asked of a policy, by keyword: exactly one limit.

    A value is a number, or a text such as "1%", "2M" or "5ms"; None counts as not given. A time is in
    seconds. `confidence` and `on_average` go with a guarantee, `without_labels` with `risk`.

    Example:
        >>> limits: offramp.Limits = {"risk": 0.1, "confidence": 0.9}
        >>> policy = fitted.calibrate(**limits)
    """

    max_accuracy_loss: Annotated[
        float | str | None,
        LimitRule(
            "Accuracy to give up against the final exit: 0.01 or 1% is one point.",
            SHARE,
            "loss",
            looser="a larger loss",
        ),
    ]
    min_accuracy: Annotated[
        float | str | None,
        LimitRule(
            "Accuracy to reach, such as 0.9 or 90%.",
            SHARE,
            "accuracy",
            looser="a lower accuracy",
            example=0.9,
        ),
    ]
    max_mean_macs: Annotated[
        float | str | None,
        LimitRule(
            "MACs an image on average: 1.5M, or 40% of the plain network's.",
            MACS,
            Budget(lambda policy: policy.macs, "mean_macs", "takes {} on average"),
            looser="fewer MACs",
        ),
    ]
    max_mean_latency: Annotated[
        float | str | None,
        LimitRule(
            "Time an image on average, by --stage-times or (not of build) measured here, such as 5ms.",
            TIME,
            Budget(
                lambda policy: policy.seconds,
                "mean_seconds",
                "takes {} on average",
                remedy=SLOW,
                stages="mean",
            ),
            looser="less time",
        ),
    ]
    max_p95_latency: Annotated[
        float | str | None,
        LimitRule(
            "Time within which 95 of 100 images are answered, by --stage-times, such as 5ms.",
            TIME,
            Budget(
                lambda policy: policy.late,
                "p95_seconds",
                "answers 95 of 100 in {} each",
                remedy=SLOW,
                stages="p95",
            ),
            looser="less time",
        ),
    ]
    max_disagreement: Annotated[
        float | str | None,
        LimitRule(
            "Share of answers that may differ from the final exit's.",
            SHARE,
            "loss",
            looser="a larger disagreement",
            loss="disagreement",
        ),
    ]
    risk: Annotated[
        float | str | None,
        LimitRule(
            "With a guarantee: share of images that only the full network gets right.",
            SHARE,
            "guarantee",
            looser="a larger risk",
            loss="harm",
        ),
    ]
    max_hamming_loss: Annotated[
        float | str | None,
        LimitRule(
            "Of several labels an image: share of labels to get wrong beyond the final exit's.",
            SHARE,
            "loss",
            looser="a larger share of labels",
            loss="label",
            several=True,
        ),
    ]
    max_missed_labels: Annotated[
        float | str | None,
        LimitRule(
            "Of several labels an image: share of its labels to miss beyond the final exit's.",
            SHARE,
            "loss",
            looser="a larger share of labels",
            loss="miss",
            several=True,
        ),
    ]
    hamming_risk: Annotated[
        float | str | None,
        LimitRule(
            "With a guarantee: share of labels that only the full network gets right.",
            SHARE,
            "guarantee",
            looser="a larger risk",
            loss="label-harm",
            several=True,
        ),
    ]
    missed_risk: Annotated[
        float | str | None,
        LimitRule(
            "With a guarantee: share of an image's labels that only the full network finds.",
            SHARE,
            "guarantee",
            looser="a larger risk",
            loss="miss-harm",
            several=True,
        ),
    ]
    confidence: Annotated[
        float | str | None,
        Companion("Of a guarantee: how sure it is.  [default: 0.95]", metavar="SHARE"),
    ]
    on_average: Annotated[bool, Companion("Of a guarantee: it holds on average only.")]
    without_labels: Annotated[
        bool, Companion("Count any answer other than the full network's as wrong.")
    ]


def _entries(kind: type) -> dict[str, Any]:
    """The entries of `Limits` with a note of this type, in their order, named as options are."""
    notes = {name: hint.__metadata__[0] for name, hint in Limits.__annotations__.items()}
    return {name.replace("_", "-"): note for name, note in notes.items() if isinstance(note, kind)}


LIMITS: Mapping[LimitKind, LimitRule] = _entries(LimitRule)
COMPANIONS: Mapping[str, Companion] = _entries(Companion)


def words(name: str) -> str:
    """A limit's name in messages, which stands for `--max-mean-macs` and `max_mean_macs` alike.

    Example:
        >>> words("max-mean-macs"), words("on_average")
        ('max mean MACs', 'on average')
    """
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
    rule = LIMITS[kind]
    if isinstance(rule.by, Budget) and value < least:
        raise OfframpError(
            f"no policy {rule.by.phrase.format(f'at most {rule.unit.write(value)}')}; the least is "
            f"{rule.unit.at_least(least)}, so allow that or {rule.by.remedy}"
            + "".join(f"; but {doubt}" for doubt in doubts)
        )


def number(name: str, rule: LimitRule, value: Any, plain_macs: int) -> float:
    """The value of a limit as a number: a share, MACs or seconds. plain_macs: of the network without
    early exits. Raises OfframpError for a value that is no such number, or out of the limit's range."""
    import numpy as np  # here: each start of the command line reads this file

    if not isinstance(value, int | float | np.number | str):
        raise OfframpError(f"{words(name)} must be a number, got {value!r}")
    return rule.unit.read(
        words(name), rule, value if isinstance(value, str) else float(value), plain_macs
    )
