"""Where a policy comes from: its target and what it came to, as a policy file has both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict

from offramp.errors import OfframpError
from offramp.policy.limits import LIMITS, Limit, LimitKind, LossKind, words

T = TypeVar("T")
Many = Annotated[tuple[T, ...], Strict(False)]  # JSON's lists; their items are checked strictly
Finite = int | Annotated[float, Field(allow_inf_nan=False)]  # 1 stays 1, and 1.0 stays 1.0


@dataclass(frozen=True)
class Target:
    """The limit that a policy is chosen for."""

    kind: LimitKind  # the limit's name
    value: float  # a share from 0 to 1, MACs for `max-mean-macs`, seconds for limits on latency
    # of a guarantee over calibration draws, for `risk`; None there bounds the mean over draws
    confidence: float | None = None
    # whether the risk is harm (the full network right, the policy wrong) or, without labels,
    # disagreement
    labels: bool = True

    def __post_init__(self) -> None:
        if self.kind not in LIMITS:
            raise OfframpError(f"target.kind: there is no limit '{self.kind}', only {', '.join(LIMITS)}")

    @property
    def loss(self) -> LossKind:
        """What the candidates are made to keep low."""
        rule = LIMITS[self.kind]
        return "disagreement" if rule.by == "guarantee" and not self.labels else rule.loss

    @property
    def words(self) -> str:
        """The limit and its value in words, as `max mean latency 5 ms` and `max mean MACs 450,000`."""
        name = words(self.kind)
        value = LIMITS[self.kind].write(self.value)
        return f"{name} {value.removesuffix(f' {name.split()[-1]}')}"  # of MACs, once


class Chosen(BaseModel):
    """What a policy came to on the calibration split. One that was set by hand has `leaving` alone; what
    is at its default stays absent from JSON."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    images: int | None = None  # of the split
    accuracy: Finite | None = None  # of the policy, 0 to 1; None where the target reads no labels
    full_accuracy: Finite | None = None  # of the full network, likewise
    mean_macs: Finite | None = None  # of an image
    plain_macs: int | None = None  # of the backbone alone
    # mean of the target's loss (`Target.loss`), 0 to 1: the share of wrong answers, of those where the
    # full network is right and the policy wrong, or of differing ones. `loss` in JSON
    risk: Finite | None = Field(default=None, alias="loss")
    leaving: Many[Finite] = ()  # share of images by exit
    risk_below: Finite | None = None  # of a guarantee with confidence
    class_shares: Many[Finite] | None = None  # the shares that images were weighted by
    survivors: bool = False  # whether thresholds were set exit by exit
    mean_seconds: Finite | None = None  # of an image, by measured times
    full_seconds: Finite | None = None  # of an image in the full network, likewise
    median_seconds: Finite | None = None  # of an image, by medians of measured times
    p95_seconds: Finite | None = None  # seconds that 95 of 100 images keep
    stages: dict[str, Any] | None = None  # those times, as they were measured

    def as_json(self) -> dict[str, Any]:
        """The JSON that it was read from, in this order of names."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def spent(self, budget: Limit) -> float | None:
        """What the policy takes of a budget; None where the file does not say it."""
        amount = self.as_json().get(budget.noted)  # of a name without a field, no reader has checked it
        return amount if isinstance(amount, int | float) else None

    @property
    def saved(self) -> float | None:
        """Share of the plain network's MACs that the policy saves, or where times were measured, of the
        full network's; None where the file does not say it."""
        if self.mean_seconds is not None and self.full_seconds:
            return 1 - self.mean_seconds / self.full_seconds
        if self.mean_macs is None or not self.plain_macs:
            return None
        return 1 - self.mean_macs / self.plain_macs

    @property
    def device(self) -> str | None:
        """That thresholds were solved for; None where times are of the machine that calibrated."""
        return None if self.stages is None else self.stages.get("device")


@dataclass(frozen=True)
class Calibration:
    """Where a policy comes from.

    Attributes:
        trial: The id of the trial whose network it is for.
        trial_hash: Of that network and its answers.
        classes: How many.
        target: The limit that it was chosen for; None for thresholds set by hand.
        chosen: What it came to on the calibration split.
        statement: What is promised, in words.

    Example:
        >>> offramp.Policy("confidence", exits=(1, 2), thresholds=(0.9, None)).calibration.statement
        'No guarantee: the thresholds were set by hand.'
    """

    trial: str = ""
    trial_hash: str = ""
    classes: int = 0
    target: Target | None = None
    chosen: Chosen | None = None
    statement: str = "No guarantee: the thresholds were set by hand."

    @property
    def target_json(self) -> dict[str, Any]:
        return {} if self.target is None else asdict(self.target)

    @property
    def chosen_json(self) -> dict[str, Any]:
        return {} if self.chosen is None else self.chosen.as_json()


class _File(BaseModel):
    """What of a policy file a `Calibration` keeps typed. Strictness is handed on to `Target`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    target: Target | None = None
    chosen: Chosen | None = None


def read(target: Mapping[str, Any], chosen: Mapping[str, Any]) -> tuple[Target | None, Chosen | None]:
    """Both as a file has them; None for an empty one. Raises pydantic's ValidationError."""
    fields = {"target": target or None, "chosen": chosen or None}
    file = _File.model_validate_json(json.dumps(fields))  # JSON's lists and objects strictly, too
    return file.target, file.chosen
