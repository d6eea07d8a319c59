"""A policy: which exit each input leaves at; and the file it is kept in."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from offramp.errors import OfframpError, complaint, kind_of, worst
from offramp.files import DOCUMENT, read_regular_text, write_whole
from offramp.parts import HIDDEN, Carry
from offramp.policy import calibration, scoring
from offramp.policy.calibration import Calibration
from offramp.policy.costs import Costs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Policy:
    """Leave at the first exit whose score reaches its threshold, else at the last.

    Attributes:
        score: How sure an exit is: `confidence`, `margin`, `entropy` and others, which
            docs/calibration.md defines.
        exits: Numbers of the network's exits, from 1, ascending.
        thresholds: One an exit; None never lets an input leave there, and the last is None.
        temperatures: One an exit, which its logits are divided by; None is 1 everywhere.
        calibration: What it was chosen for and what is promised of it. Two policies that decide alike
            are equal.
        carry: Of a network whose exits add that share of the answer of the exit before to their heads'
            logits, so that all heads before an exit are run; the logits here are such answers. "learned"
            or "hidden": early exits add what their heads have learned to add, and the final exit
            nothing. 0: none.
        gates: For the score `gate`, what each exit has learned: weights of confidence, entropy, margin
            and the entropy of the squared probabilities, then a constant; the last has None.

    Raises:
        OfframpError: A threshold is out of the score's range, or gates do not fit the score.

    Example:
        >>> from offramp import Policy
        >>> policy = Policy("confidence", exits=(1, 2, 3), thresholds=(0.9, 0.8, None))
        >>> sure, unsure = [[9.0, 0.0]] * 3, [[0.1, 0.0], [0.2, 0.0], [0.3, 0.0]]
        >>> logits = torch.tensor([sure, unsure])  # [images, exits, classes]
        >>> policy.leaves(logits)  # counts from 0
        tensor([0, 2])
    """

    score: str
    exits: tuple[int, ...]
    thresholds: tuple[float | None, ...]
    temperatures: tuple[float, ...] | None
    calibration: Calibration = field(compare=False, repr=False)
    carry: Carry
    gates: tuple[tuple[float, ...] | None, ...] | None

    def __init__(
        self,
        score: str,
        exits: Sequence[int],
        thresholds: Sequence[float | None],
        temperatures: Sequence[float] | None = None,
        calibration: Calibration = Calibration(),  # noqa: B008  # frozen
        carry: Carry = 0.0,
        gates: Sequence[Sequence[float] | None] | None = None,
    ) -> None:
        values = (score, exits, thresholds, temperatures, calibration, carry, gates)
        for each, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, each.name, _plain(value))
        problem = _problem(self)
        if problem is not None:
            raise OfframpError(problem)

    @overload
    def leaves(self, logits: NDArray[Any]) -> NDArray[np.intp]: ...

    @overload
    def leaves(self, logits: Tensor | Sequence[Tensor]) -> Tensor: ...

    def leaves(self, logits: scoring.Array) -> scoring.Array:
        """The index of the exit that each row leaves at, from 0 (`Prediction.exits` counts from 1).

        Args:
            logits: [N, E, C] of numpy or torch; or, as a network returns them, [N, C] an exit.

        Returns:
            [N].

        Raises:
            OfframpError: The logits have another shape.

        Example:
            >>> rule = offramp.Policy("confidence", exits=(1, 2), thresholds=(0.9, None))
            >>> rule.leaves(torch.tensor([[[3.0, 0.0], [4.0, 0.0]], [[0.5, 0.0], [4.0, 0.0]]]))
            tensor([0, 1])
        """
        if isinstance(logits, tuple | list):
            logits = scoring.library(logits[0]).stack(tuple(logits), axis=1)
        if len(logits.shape) != 3 or logits.shape[1] != len(self.exits):
            shape = tuple(logits.shape)
            raise OfframpError(f"logits must be [rows, {len(self.exits)}, classes], got {shape}")
        check_classes(self, logits.shape[2])
        places = scoring.leaves(self.score, logits, self.thresholds, self.temperatures, self.gates)
        if self.takes_all is None:
            return places
        return scoring.library(places).where(places > self.takes_all, self.takes_all, places)

    @property
    def several(self) -> bool:
        """Whether it is for images with several labels each."""
        return scoring.SCORES[self.score].several

    @property
    def takes_all(self) -> int | None:
        """Index of the first exit whose threshold no image is below, so that none goes beyond it."""
        low = scoring.SCORES[self.score].low
        return next((i for i, t in enumerate(self.thresholds) if t is not None and t <= low), None)

    @property
    def active(self) -> tuple[int, ...]:
        """Indices of the exits whose heads must be run: where an input can leave, the last one that it
        can reach, and all before them where a score has a history or exits add to one another."""
        last, score = len(self.exits) - 1, scoring.SCORES[self.score]
        final = last if self.takes_all is None else self.takes_all  # nothing goes beyond
        early = [
            i
            for i, t in enumerate(self.thresholds[:final])
            if t is not None and not (score.counts and t > i + 1)  # a count is i + 1 at most
        ]
        if self.carry and not isinstance(self.carry, str):
            return tuple(range(final + 1))
        if self.carry or score.history:
            early = list(range(final if final < last else max(early, default=-1) + 1))
        return (*early, final)

    def macs(self, costs: Costs) -> tuple[int, ...]:
        """MACs of an image that leaves at each exit, [E]; 0 where none leaves.

        Example:
            >>> costs = offramp.Costs(segments=(400, 600), heads=(10, 20), owners=(0, 0), exits=(1, 2))
            >>> offramp.Policy("confidence", exits=(1, 2), thresholds=(0.9, None)).macs(costs)
            (410, 1030)
        """
        spent = dict(zip(self.active, costs.leaving(self.active), strict=True))
        return tuple(spent.get(i, 0) for i in range(len(self.exits)))

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """The policy in a file.

        Raises:
            OfframpError: One line that names what is wrong.

        Example:
            >>> fitted.calibrate(max_accuracy_loss=0.02).save("policy.json")
            >>> offramp.Policy.load("policy.json").exits
            (1, 2, 3)
        """
        if not isinstance(path, str | PathLike):
            raise OfframpError(f"the policy is {kind_of(path)}; give the path of a policy file")
        try:
            text = read_regular_text(Path(path), DOCUMENT)
        except FileNotFoundError:
            raise OfframpError(f"there is no policy {path}; calibrate a network to have one") from None
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise OfframpError(f"cannot read the policy {path} ({reason}); give another file") from error
        try:
            return parse(text)
        except OfframpError as error:
            raise OfframpError(f"{path}: {error}; calibrate again") from error

    def save(self, path: str | Path) -> None:
        """Write a policy file, whole or not at all.

        Raises:
            OfframpError: It cannot be written, or the policy was calibrated for no network.

        Example:
            >>> fitted.calibrate(max_accuracy_loss=0.02).save("policy.json")
        """
        if not self.calibration.trial_hash:
            raise OfframpError("the policy was calibrated for no network; calibrate one, then save it")
        write_whole(Path(path), to_json(self))


class _Exit(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    exit: Annotated[int, Field(ge=1)]
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    gate: list[Annotated[float, Field(allow_inf_nan=False)]] | None = None


class _PolicyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    format: Literal[1]
    trial: str
    trial_hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    classes: Annotated[int, Field(ge=2)]
    score: str
    exits: Annotated[list[_Exit], Field(min_length=1)]
    carry: Annotated[float, Field(ge=0, le=1)] | Literal["learned", "hidden"] = 0.0
    target: dict[str, Any]
    chosen: dict[str, Any]
    statement: str


def to_json(policy: Policy) -> str:
    """The text of a policy file: the same for the same policy, to the byte."""
    origin = policy.calibration
    warmth = policy.temperatures or (1.0,) * len(policy.exits)
    gates = policy.gates or (None,) * len(policy.exits)
    rows = zip(policy.exits, policy.thresholds, warmth, gates, strict=True)
    names = ("exit", "threshold", "temperature", "gate")
    value = {
        "format": 1,
        "trial": origin.trial,
        "trial_hash": origin.trial_hash,
        "classes": origin.classes,
        "score": policy.score,
        "exits": [dict(zip(names, row, strict=True)) for row in rows],
        "carry": policy.carry,
        "target": origin.target_json,
        "chosen": origin.chosen_json,
        "statement": origin.statement,
    }
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def as_policy(policy: Policy | str | Path) -> Policy:
    """The policy itself, or that in a file. Raises OfframpError for anything else, and as `Policy.load`
    does."""
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, str | Path):
        return Policy.load(policy)
    raise OfframpError(f"the policy is {kind_of(policy)}; give a Policy, or the path of a policy file")


def parse(text: str) -> Policy:
    """The policy in the text of a file. Raises OfframpError."""
    try:
        file = _PolicyFile.model_validate_json(text)
        target, chosen = calibration.read(file.target, file.chosen)
    except ValidationError as error:
        raise OfframpError(located(error, "policy")) from None
    warmth = tuple(e.temperature for e in file.exits)
    gates = tuple(None if e.gate is None else tuple(e.gate) for e in file.exits)
    return Policy(
        file.score,
        tuple(e.exit for e in file.exits),
        tuple(e.threshold for e in file.exits),
        None if all(w == 1.0 for w in warmth) else warmth,
        Calibration(file.trial, file.trial_hash, file.classes, target, chosen, file.statement),
        file.carry,
        None if all(gate is None for gate in gates) else gates,
    )


def located(error: ValidationError, whole: str) -> str:
    """What is wrong with a document, after the place of that in it. whole: what stands for all of it."""
    return f"{'.'.join(map(str, worst(error)['loc'])) or whole} {complaint(worst(error))}"


def check_fits(policy: Policy, trial: str, trial_hash: str, exits: Sequence[int]) -> None:
    """Raise OfframpError when the policy was not made for this very network."""
    for exit in exits:
        if exit not in policy.exits:
            raise OfframpError(
                f"the policy says nothing of exit {exit} of trial {trial}; calibrate again"
            )
    origin = policy.calibration
    if policy.exits != tuple(exits) or origin.trial_hash != trial_hash:
        raise OfframpError(
            f"the policy was made for trial {origin.trial} (hash {origin.trial_hash[:12]}), not for "
            f"{trial} (hash {trial_hash[:12]}); calibrate that trial"
        )


def check_carry(policy: Policy, carry: Carry, final: int) -> None:
    """Raise OfframpError where the exits of a network carry answers in another way than those of a
    policy, or on from an exit that the policy leaves out. final: the network's last exit."""
    if policy.carry != carry:
        raise OfframpError(
            f"the policy is for exits that {_carrying(policy.carry)}, those of the network "
            f"{_carrying(carry)}; calibrate a policy for this network"
        )
    alone = {final} if isinstance(carry, str) else set()  # it adds nothing
    read = [k for k in policy.exits if k not in alone]
    cut = alone and policy.exits[-1] != final  # policies take the last exit for the final one
    if carry and (cut or read != [*range(1, len(read) + 1)]):
        raise OfframpError(
            f"the policy names exits {', '.join(map(str, policy.exits))}, and those of the network "
            f"{_carrying(carry)}; name all exits, with None where nothing may leave"
        )


def check_classes(policy: Policy, classes: int) -> None:
    """Raise OfframpError when a policy was made for another number of classes."""
    own = policy.calibration.classes or classes
    if own != classes:
        raise OfframpError(
            f"the policy is for {own} classes and the network tells {classes} apart; calibrate a policy "
            "for this network"
        )


def _carrying(carry: Carry) -> str:
    if isinstance(carry, str):
        layer = " through a hidden layer" if carry == HIDDEN else ""
        return f"have learned what to carry of the answer before{layer}"
    return f"carry {carry:g} of the answer before"


def _plain(value: Any) -> Any:
    """Tuples of Python's own numbers, of lists, arrays and their numbers: what compares and is written
    as JSON."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _problem(policy: Policy) -> str | None:
    """What is wrong with a policy, in one line; None when nothing is."""
    exits, thresholds = policy.exits, policy.thresholds
    if not isinstance(exits, tuple) or not isinstance(thresholds, tuple):
        return f"exits and thresholds must be lists, got {exits!r} and {thresholds!r}"
    if policy.score not in scoring.SCORES:
        return f"score '{policy.score}' is none of {', '.join(scoring.SCORES)}"
    counted = all(isinstance(k, int) and k >= 1 for k in exits)
    if not exits or not counted or list(exits) != sorted(set(exits)):
        return f"exits must be ascending numbers from 1, got {list(exits)}"
    if len(thresholds) != len(exits):
        return f"{len(exits)} exits need as many thresholds, got {len(thresholds)}"
    if thresholds[-1] is not None:
        return f"exit {exits[-1]} is the last and has no threshold, got {thresholds[-1]}"
    low, high = scoring.SCORES[policy.score].low, scoring.SCORES[policy.score].high
    for exit, threshold in zip(exits, thresholds, strict=True):
        if threshold is not None and not (low <= threshold <= high and threshold < math.inf):
            span = f"from {low:g} to {high:g}" if high < math.inf else f"at least {low:g} and finite"
            return f"threshold of exit {exit} must be {span} for {policy.score}, got {threshold:g}"
    warmth = policy.temperatures
    if warmth is not None and len(warmth) != len(exits):
        return f"{len(exits)} exits need as many temperatures, got {len(warmth)}"
    if warmth is not None and not all(0 < w < math.inf for w in warmth):
        return f"temperatures must be above 0, got {list(warmth)}"
    return _problem_of_gates(policy)


def _problem_of_gates(policy: Policy) -> str | None:
    gates, exits, score = policy.gates, policy.exits, scoring.SCORES[policy.score]
    if not score.learned:
        return None if gates is None else f"gates go with the score gate, not with {policy.score}"
    gates = (None,) * len(exits) if gates is None else gates
    if len(gates) != len(exits):
        return f"{len(exits)} exits need as many gates, got {len(gates)}"
    size = scoring.GATE_SIZE
    for exit, threshold, gate in zip(exits, policy.thresholds, gates, strict=True):
        if gate is None and threshold is not None:
            return f"exit {exit} has a threshold and no gate; calibrate gives one"
        if gate is not None and not (len(gate) == size and all(map(math.isfinite, gate))):
            return f"the gate of exit {exit} must be {size} finite numbers, got {list(gate)}"
    return None
