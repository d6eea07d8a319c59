"""How long and how fast a phase trains."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, Self, assert_never

from annotated_types import Ge, Gt, Le, Lt

from offramp.errors import OfframpError, check_fields, nearest
from offramp.hashing import YOUNGER
from offramp.units import Count

Positive = Annotated[float, Gt(0)]
ADOPTED = "adopted"
"""The program of a network that was trained elsewhere, by no recipe known here; in what its node reads,
a digest of all its weights."""
OF_STRATEGIES = ("temperature", "alpha", "joint_weights")  # a study's recipe has them for all at once


@dataclass(frozen=True)
class Recipe:
    """The settings of one phase's optimization. Every field is part of the phase's key.

    Settings of strategies (temperature, alpha, joint_weights) are `options` of `fit`.

    Attributes:
        epochs: Passes over the training split, at least 1.
        batch_size: Images a step.
        optimizer: `sgd`, `adam` or `adamw`, each in PyTorch's fused form.
        learning_rate: After warm-up and before decay.
        learning_rate_scale: Multiplies it, for a phase that fine-tunes trained weights.
        momentum: Of SGD.
        nesterov: Of SGD.
        weight_decay: As the optimizer defines it (decoupled in AdamW).
        schedule: `constant`; `cosine` to zero; `step`: times `step_factor` at each of `step_at`;
            `triangular` and `one-cycle`: from `start_factor` of the learning rate up to all of it at
            `peak_at`, and down to `end_factor` of it, along straight lines or along cosines (Smith and
            Topin, arXiv 1708.07120).
        step_at: Shares of the epochs, of the `step` schedule.
        step_factor: Above 0, at most 1.
        warmup_epochs: Linear from zero, before the schedule.
        patience: Epochs without a lower validation loss until the phase stops; None never stops it.
        select: The weights handed on: `best` (lowest validation loss), `last`, or `auto`: best if there
            is a patience, else last.
        class_weights: `balanced` multiplies an image's cross-entropy by N/(C·n), where its class has n
            training images and all C classes have N. Each class then weighs the same. Terms of
            distillation are not weighted.
        label_smoothing: The share ε of each target that is spread evenly over all classes, in the
            cross-entropy that trains, and so in the loss of training epochs. Terms of distillation, and
            the losses of other splits, are not smoothed.
        decoupled_decay: Of SGD: each step subtracts rate · weight_decay of every weight, apart from the
            momentum (SGDW of Loshchilov and Hutter, arXiv 1711.05101).
        norm_weight_decay: Of the weights and biases of normalization layers; None: `weight_decay`.
        norm_bias_rate_scale: Multiplies the learning rate of the biases of normalization layers.
        peak_at: A share of the epochs, of the `triangular` and `one-cycle` schedules.
        start_factor: Of the learning rate, where these begin.
        end_factor: Of the learning rate, where these end.
        average: `ema`: a moving average of weights and buffers (all but counters) is validated and
            handed on. `lookahead`: training goes on from it, too (Zhang et al., arXiv 1907.08610).
        average_every: Steps between two updates of the average.
        average_decay: The share of the average that an update keeps.
        average_ramp: The decay is multiplied by (steps done / all steps) to this power, so that the
            average follows closely at first; 0 leaves it constant.

    Raises:
        OfframpError: For a setting that is not among them, and for a value of another type or out of
            its range.

    >>> from offramp import Recipe
    >>> recipe = Recipe(epochs=20, optimizer="adamw", learning_rate=1e-3, schedule="cosine")
    >>> recipe.rate(10) < recipe.rate(0)
    True
    """

    epochs: Count = 20
    batch_size: Count = 128
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Positive = 0.05
    learning_rate_scale: Positive = 1.0
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Ge(0)] = 0.0
    schedule: Literal["constant", "cosine", "step", "triangular", "one-cycle"] = "constant"
    step_at: tuple[Annotated[float, Gt(0), Lt(1)], ...] = (0.5, 0.75)
    step_factor: Annotated[float, Gt(0), Le(1)] = 0.1
    warmup_epochs: Annotated[float, Ge(0)] = 0.0
    patience: Count | None = None
    select: Literal["auto", "best", "last"] = "auto"
    class_weights: Literal["none", "balanced"] = field(default="none", metadata=YOUNGER)
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = field(default=0.0, metadata=YOUNGER)
    decoupled_decay: bool = field(default=False, metadata=YOUNGER)
    norm_weight_decay: Annotated[float, Ge(0)] | None = field(default=None, metadata=YOUNGER)
    norm_bias_rate_scale: Positive = field(default=1.0, metadata=YOUNGER)
    peak_at: Annotated[float, Gt(0), Lt(1)] = field(default=0.3, metadata=YOUNGER)
    start_factor: Annotated[float, Ge(0), Le(1)] = field(default=0.04, metadata=YOUNGER)
    end_factor: Annotated[float, Ge(0), Le(1)] = field(default=0.0, metadata=YOUNGER)
    average: Literal["none", "ema", "lookahead"] = field(default="none", metadata=YOUNGER)
    average_every: Count = field(default=5, metadata=YOUNGER)
    average_decay: Annotated[float, Gt(0), Lt(1)] = field(default=0.9, metadata=YOUNGER)
    average_ramp: Annotated[float, Ge(0)] = field(default=0.0, metadata=YOUNGER)

    def __new__(cls, *_: Any, **settings: Any) -> Self:
        names = [each.name for each in fields(cls)]
        for name in settings:
            if name not in names:
                where = f"; it is an option of strategies: options={{'{name}': …}}"
                hint = where if name in OF_STRATEGIES else nearest(name, names)
                raise OfframpError(f"Recipe has no setting '{name}'{hint}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if isinstance(self.step_at, list):
            object.__setattr__(self, "step_at", tuple(self.step_at))
        check_fields(self)

    @property
    def selects_best(self) -> bool:
        match self.select:
            case "auto":
                return self.patience is not None
            case "best":
                return True
            case "last":
                return False
            case _:
                assert_never(self.select)

    def rate(self, progress: float) -> float:
        """The learning rate at a time of training.

        Args:
            progress: Epochs that are done, 0 ≤ progress < epochs.

        >>> offramp.Recipe(epochs=20, learning_rate=0.1, warmup_epochs=4).rate(2)
        0.05
        """
        peak = self.learning_rate * self.learning_rate_scale
        if progress < self.warmup_epochs:
            return peak * progress / self.warmup_epochs
        share = progress / self.epochs
        match self.schedule:
            case "constant":
                return peak
            case "cosine":
                rest = (progress - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-12)
                return peak * 0.5 * (1 + math.cos(math.pi * rest))
            case "step":
                return float(peak * self.step_factor ** sum(share >= at for at in self.step_at))
            case "triangular" | "one-cycle":
                rising = share < self.peak_at
                height = share / self.peak_at if rising else (1 - share) / (1 - self.peak_at)
                if self.schedule == "one-cycle":
                    height = 0.5 * (1 - math.cos(math.pi * height))
                low = self.start_factor if rising else self.end_factor
                return peak * (low + (1 - low) * height)
            case _:
                assert_never(self.schedule)

    def decay_of_average(self, progress: float) -> float:
        """The share of the average that an update keeps at a time of training.

        Args:
            progress: Epochs that are done, 0 < progress ≤ epochs.

        >>> recipe = offramp.Recipe(epochs=8, average="ema", average_decay=0.96, average_ramp=3)
        >>> recipe.decay_of_average(4)
        0.12
        """
        return float(self.average_decay * (progress / self.epochs) ** self.average_ramp)


# `__new__` takes anything, to say what is near it: tools show what `__init__` takes.
Recipe.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    list(inspect.signature(Recipe.__init__).parameters.values())[1:]
)


def best_epoch(losses: list[float]) -> int:
    """Index of the first lowest validation loss."""
    return min(range(len(losses)), key=losses.__getitem__)


def finished(losses: list[float], recipe: Recipe) -> bool:
    """Whether a phase with these validation losses, one an epoch so far, trains no further."""
    if len(losses) >= recipe.epochs:
        return True
    if recipe.patience is None or not losses:
        return False
    return len(losses) - 1 - best_epoch(losses) >= recipe.patience


def clash(recipe: Recipe) -> tuple[str, str] | None:
    """A field that another field rules out, and what is wrong with it; else None."""
    if recipe.warmup_epochs > recipe.epochs:
        what = f"must be at most the {recipe.epochs} epochs, got {recipe.warmup_epochs:g}"
        return "warmup_epochs", what
    if recipe.optimizer == "sgd" and recipe.nesterov and recipe.momentum == 0:
        return "nesterov", "needs a momentum above 0; set recipe.momentum"
    if recipe.decoupled_decay and recipe.optimizer != "sgd":
        return "decoupled_decay", f"goes with sgd, not {recipe.optimizer}; adamw decouples by itself"
    if recipe.warmup_epochs and recipe.schedule in ("triangular", "one-cycle"):
        return "warmup_epochs", f"goes with no {recipe.schedule} schedule, which rises by itself"
    return None
