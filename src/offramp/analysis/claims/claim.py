"""What runs were made of, and whether a claim is about such runs: data, start of the weights, regime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from offramp.analysis.measures import MEASURES, find_measure
from offramp.errors import nearest
from offramp.sections import Section, fail
from offramp.usercode import is_user_code

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
    "train": "{} training {noun}s",
    "test": "{} test {noun}s",
    "size": "{} px",
    "channels": "{} channels",
    "epochs": "{} epochs",
}


@dataclass(frozen=True)
class Regime:
    """What the trials of one network on one data set were made of."""

    named: tuple[str, ...]  # the classes
    # train, test: images that trained and that tested; None where nobody noted it
    train: int | None
    test: int | None
    size: int  # pixels of an image's side
    channels: int
    epochs: int  # of a phase
    weights: Start  # what training began with
    noun: str = "image"  # what one of them is called; a text has no pixels and no channels
    images: str = ""  # a key of those that tested and their labels; an empty one agrees with none
    source: str = ""  # what the data are by name, where a study calls them something else

    @property
    def classes(self) -> int:
        """How many."""
        return len(self.named)


class DataSet(Section):
    """Runs that a claim is about: those that have all that is given here."""

    name: Word = "*"  # a pattern of the data's name in a store
    title: str = ""  # for messages
    models: Names = ("*",)  # patterns of networks
    # names that are among those of the classes.  Of numbers: one, or the least and the most
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
        names = (data, *([regime.source] if regime is not None and regime.source else []))
        if not any(fnmatchcase(name, self.name) for name in names):
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
                fact_text = COUNTED[fact].format(here, noun=regime.noun)
                off.append(
                    (
                        fact_text.removesuffix("s") if number == 1 else fact_text,
                        COUNTED[fact].format(range_text, noun="image"),
                    )
                )
        if self.weights not in (None, regime.weights):
            off.append((f"{regime.weights} weights", f"{self.weights} weights"))
        return off


SIDES = ("against", "order", "against_exits", "against_models", "against_data")


def _known_measure(name: Any) -> Any:
    if isinstance(name, str) and name not in MEASURES and not is_user_code(name):
        raise fail(f"is '{name}', which is not a measure{nearest(name, MEASURES)}")
    return name


def _data(value: Any) -> Any:
    """A name stands for a data set of that name."""
    sets = listed(value)
    if not isinstance(sets, (list, tuple)):
        return sets
    return [{"name": data, "title": data} if isinstance(data, str) else data for data in sets]


DataSets = Annotated[
    tuple[DataSet, ...], BeforeValidator(_data), Field(strict=False, min_length=1, max_length=100)
]
Ids = Annotated[tuple[Word, ...], BeforeValidator(listed), Field(strict=False, max_length=100)]
ExitNumber = Annotated[int, Field(ge=1)] | Literal["final"]


def _exits(value: Any) -> Any:
    exits = listed(value)
    whole = isinstance(exits, (list, tuple)) and bool(exits)
    for exit in exits if whole else ():
        number = isinstance(exit, int) and not isinstance(exit, bool) and exit >= 1
        whole = whole and (number or exit == "final")
    if not whole:
        raise fail("must be a list of exits, numbers from 1 or 'final'")
    return exits


def _exits_or_overall(value: Any) -> Any:
    return value if value == "overall" else _exits(value)


ExitNumbers = Annotated[tuple[ExitNumber, ...], BeforeValidator(_exits), Field(strict=False)]


class Claim(Section):
    """A statement: `measure` of `strategies` is higher than that of what stands `against`, or lower, or
    within a margin of it. Exactly one of the SIDES is given."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]
    section: Word
    question: Literal["rq1", "rq2", "rq3", "more"]
    text: Word
    measure: Annotated[str, BeforeValidator(_known_measure)]
    is_: Annotated[Literal["higher", "lower", "within"], Field(alias="is")]
    strategies: Names | None = None
    # other strategies; `core`, `hybrids` and, of each hybrid, its `parents` are short for several,
    # without those on the left
    against: Names | None = None
    # in place of strategies and against, a chain, each higher (lower) than the next
    order: Names | None = None
    # against_exits, against_models, against_data: the same strategies at other exits, on other models or
    # data
    against_exits: ExitNumbers | None = None
    against_models: Names | None = None
    against_data: DataSets | None = None
    # `overall`, or a list of numbers and `final`, each of which must hold
    exits: Annotated[Literal["overall"] | ExitNumbers, BeforeValidator(_exits_or_overall)] = "overall"
    # of test accuracy at equal compute: MACs of an image on average, such as `17.1M`; a share of the
    # plain network's, such as `50%`; or a smaller plain network by its label, whose MACs they are.
    # Strategies are then also plain networks, cascades and `plain networks`, a coin
    at: Word | None = None
    # `each`, every one of the left against every one of the right, all of which must hold; or `mean`, of
    # the left and of the right
    by: Literal["each", "mean"] = "each"
    # how much higher (lower) at least, in the measure's stored unit; a negative one is how much may be
    # lacking; of `within`, how far apart at most, on either side
    margin: float = 0.0
    models: Names = ("*",)  # patterns such as `resnet*`
    # data sets; every pair of a model and a data set in the store that is meant must hold
    data: DataSets = (DataSet(),)
    contradicts: Ids = ()  # ids of claims that say the reverse, of these data or of others
    note: str = ""

    @model_validator(mode="after")
    def _one_comparison(self) -> Self:
        sides = [side for side in SIDES if getattr(self, side) is not None]
        if len(sides) != 1:
            raise fail(f"needs one of {', '.join(SIDES)}, has {' and '.join(sides) or 'none'}")
        if (self.order is None) == (self.strategies is None):
            raise fail("needs strategies, or an order in their place")
        if self.order is not None and len(self.order) < 2:
            raise fail("needs two strategies or more", "order")
        if self.is_ == "within" and self.margin <= 0:
            raise fail("is within, so it needs a margin above 0: how far apart at most")
        if self.at is not None and (self.measure != "accuracy-test" or self.exits != "overall"):
            raise fail("is of accuracy-test and overall: policies use all exits", "at")
        if self.exits == "overall" and self.against_exits is not None:
            raise fail("needs exits, numbers or 'final', beside against_exits")
        # Code is not run to read a claim; a metric of the user's is of exits in any case.
        measure = None if is_user_code(self.measure) else find_measure(self.measure)
        if self.exits != "overall" and measure is not None and not measure.per_exit:
            raise fail(f"must be overall: {self.measure} is not of an exit", "exits")
        return self

    @property
    def column(self) -> str:
        """What it reads: the measure, and the compute at which."""
        return self.measure if self.at is None else f"{self.measure} at {self.at}"


class Claims(Section):
    """A claims file."""

    data_sets: dict[Word, DataSet] = Field({})  # what a name in it stands for
    data: DataSets = (DataSet(),)  # what claims are about that do not say it themselves
    claims: Annotated[tuple[Claim, ...], Field(strict=False, min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _ids(self) -> Self:
        ids = [claim.id for claim in self.claims]
        for i, claim in enumerate(self.claims):
            if claim.id in ids[:i]:
                raise fail(f"is '{claim.id}', as of an earlier claim", "claims", i, "id")
            for other in claim.contradicts:
                if other == claim.id or other not in ids:
                    what = f"names '{other}', which is no other claim{nearest(other, ids)}"
                    raise fail(what, "claims", i, "contradicts")
        return self

    def bound(self, anywhere: bool = False) -> tuple[Claim, ...]:
        """The claims, with data sets in place of their names. anywhere: those that are about all data of
        the file become statements on whatever is there."""
        return tuple(self._bind(claim, anywhere) for claim in self.claims)

    def _bind(self, claim: Claim, anywhere: bool) -> Claim:
        meant = claim.data if "data" in claim.model_fields_set else self.data
        if anywhere and set(self.data) <= set(meant) and claim.against_data is None:
            return claim.model_copy(update={"data": (DataSet(),)})
        bound: dict[str, object] = {"data": self._meant(meant)}
        if claim.against_data is not None:
            bound["against_data"] = self._meant(claim.against_data)
        return claim.model_copy(update=bound)

    def _meant(self, sets: Sequence[DataSet]) -> tuple[DataSet, ...]:
        by_name = {name: data.named_as(name) for name, data in self.data_sets.items()}
        return tuple(by_name.get(data.name, data) if data.plain else data for data in sets)
