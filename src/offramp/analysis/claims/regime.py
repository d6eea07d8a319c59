"""What runs were made of, and whether a claim is about such runs: data, start of the weights, regime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field

from offramp.sections import Section, fail

Start = Literal["random", "pretrained"]


def listed(value: Any) -> Any:
    """A single name, number or mapping stands for a list of one."""
    single = isinstance(value, (str, int, Mapping)) and not isinstance(value, bool)
    return [value] if single else value


def _span(value: Any) -> Any:
    """A number stands for itself to itself."""
    ends = value if isinstance(value, (list, tuple)) else (value, value)
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in ends)
    if not (whole and len(ends) == 2 and ends[0] <= ends[1]):
        raise fail("must be a number, or a list of the least and the most")
    return ends


Word = Annotated[str, Field(min_length=1)]
Names = Annotated[
    tuple[Word, ...], BeforeValidator(listed), Field(strict=False, min_length=1, max_length=100)
]
Span = Annotated[tuple[int, int], BeforeValidator(_span), Field(strict=False)]
COUNTED = {
    "classes": "{} classes",
    "train": "{} training images",
    "test": "{} test images",
    "size": "{} px",
    "channels": "{} channels",
    "epochs": "{} epochs",
}


@dataclass(frozen=True)
class Regime:
    """What the trials of one network on one data set were made of.

    named: the classes.  train, test: images that trained and that tested; None where nobody noted it.
    size: pixels of an image's side.  epochs: of a phase.  weights: what training began with.  images: a
    key of those that tested and their labels; an empty one agrees with none.
    """

    named: tuple[str, ...]
    train: int | None
    test: int | None
    size: int
    channels: int
    epochs: int
    weights: Start
    images: str = ""

    @property
    def classes(self) -> int:
        """How many."""
        return len(self.named)


class DataSet(Section):
    """Runs that a claim is about: those that have all that is given here.

    name: a pattern of the data's name in a store.  models: patterns of networks.  named: names that are
    among those of the classes.  Of numbers: one, or the least and the most.  title: for messages.
    """

    name: Word = "*"
    title: str = ""
    models: Names = ("*",)
    named: Annotated[tuple[Word, ...], BeforeValidator(listed), Field(strict=False)] = ()
    classes: Span | None = None
    train: Span | None = None
    test: Span | None = None
    size: Span | None = None
    channels: Span | None = None
    epochs: Span | None = None
    weights: Start | None = None

    @property
    def plain(self) -> bool:
        """Whether it is a name and nothing else."""
        return not self.model_fields_set - {"name", "title"}

    def named_as(self, name: str) -> Self:
        """With a title."""
        return self if self.title else self.model_copy(update={"title": name})

    def off(self, model: str, data: str, regime: Regime | None) -> list[tuple[str, str]]:
        """What the runs of a network on data are, and what they should be, where the two differ."""
        off = []
        if not fnmatchcase(data, self.name):
            off.append((data, self.name))
        if not any(fnmatchcase(model, pattern) for pattern in self.models):
            off.append((model, " or ".join(self.models)))
        spans = {fact: span for fact in COUNTED if (span := getattr(self, fact)) is not None}
        if regime is None:
            return [*off, ("no record of what they are", "one")] if not self.plain else off
        if lacking := [name for name in self.named if name not in regime.named]:
            other = next((name for name in regime.named if name not in self.named), None)
            here = f"no class {lacking[0]}" if other is None else f"the class {other}"
            off.append((here, f"the class {lacking[0]}"))
        for fact, (low, high) in spans.items():
            number = getattr(regime, fact)
            if number is None or not low <= number <= high:
                here = "an unknown number of" if number is None else f"{number:,}"
                range_text = f"{low:,}" if low == high else f"{low:,} to {high:,}"
                fact_text = COUNTED[fact].format(here)
                off.append(
                    (
                        fact_text.removesuffix("s") if number == 1 else fact_text,
                        COUNTED[fact].format(range_text),
                    )
                )
        if self.weights not in (None, regime.weights):
            off.append((f"{regime.weights} weights", f"{self.weights} weights"))
        return off
