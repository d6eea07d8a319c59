"""Where a policy comes from: what was asked for and what it came to, as its file keeps both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict

from offramp.policy.limits import LIMITS, LimitKind, LossKind

T = TypeVar("T")
Many = Annotated[tuple[T, ...], Strict(False)]  # JSON's lists, whose items are taken strictly
Finite = int | Annotated[float, Field(allow_inf_nan=False)]  # 1 stays 1, and 1.0 stays 1.0


@dataclass(frozen=True)
class Target:
    """What is asked for.

    value: a share from 0 to 1, MACs for `max-mean-macs`, seconds for limits on latency.  confidence: of
    a guarantee over calibration draws, for `risk`; None there bounds the mean over draws.  labels:
    whether the risk is harm (the full network right, the policy wrong) or, without labels, disagreement.
    """

    kind: LimitKind
    value: float
    confidence: float | None = None
    labels: bool = True

    @property
    def loss(self) -> LossKind:
        """What the candidates are made to keep low."""
        limit = LIMITS[self.kind]
        return "disagreement" if limit.kept == "guarantee" and not self.labels else limit.loss


class Chosen(BaseModel):
    """What a policy came to on the calibration split. One that was set by hand says `leaving` alone, and
    what an earlier offramp did not write is at its default; both stay absent from JSON.

    images: of the split.  accuracy, full_accuracy: of the policy and the full network, 0 to 1; None
    where the target reads no labels.  mean_macs: of an image.  plain_macs: of the backbone alone.
    risk: mean of the target's loss (`Target.loss`), 0 to 1: the share of wrong answers, of those where
    the full network is right and the policy wrong, or of differing ones; `loss` in JSON.
    leaving: share of images by exit.  risk_below: of a guarantee with confidence.
    class_shares: that images were weighted by.  survivors: whether thresholds were set exit by exit.
    mean_seconds, full_seconds, median_seconds: of an image, by measured times.  p95_seconds: that 95 of
    100 images keep.  stages: those times, as they were measured.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    images: int | None = None
    accuracy: Finite | None = None
    full_accuracy: Finite | None = None
    mean_macs: Finite | None = None
    plain_macs: int | None = None
    risk: Finite | None = Field(default=None, alias="loss")
    leaving: Many[Finite] = ()
    risk_below: Finite | None = None
    class_shares: Many[Finite] | None = None
    survivors: bool = False
    mean_seconds: Finite | None = None
    full_seconds: Finite | None = None
    median_seconds: Finite | None = None
    p95_seconds: Finite | None = None
    stages: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The JSON that it was read from, in this order of names."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @property
    def device(self) -> str | None:
        """That thresholds were solved for; None where times are of the machine that calibrated."""
        return None if self.stages is None else self.stages.get("device")


@dataclass(frozen=True)
class Calibration:
    """Where a policy comes from.

    trial, trial_hash: of the network it was made for.  classes: how many.  target: what was asked for.
    chosen: what it came to on the calibration split.  statement: what is promised, in words.

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
    said = {"target": target or None, "chosen": chosen or None}
    file = _File.model_validate_json(json.dumps(said))  # JSON's lists and objects are taken strictly too
    return file.target, file.chosen
