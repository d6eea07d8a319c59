"""What a claims file may say: strict, so that a misspelled word is no silent claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from offramp.analysis.claims.regime import DataSet, Names, Word, listed
from offramp.analysis.measures import MEASURES, find_measure
from offramp.errors import nearest
from offramp.sections import Section, fail
from offramp.usercode import is_user_code

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
    within a margin of it.

    Exactly one of the SIDES is given. against: other strategies; `core`, `hybrids` and, of each hybrid,
    its `parents` are short for several, without those on the left.  order: in place of strategies and
    against, a chain, each higher (lower) than the next.  against_exits, against_models, against_data:
    the same strategies at other exits, on other models or data.

    by: `each`, every one of the left against every one of the right, all of which must hold; or
    `mean`, of the left and of the right.  margin: how much higher (lower) at least, in the measure's
    stored unit; a negative one is how much may be lacking; of `within`, how far apart at most, on either
    side.  exits: `overall`, or a list of numbers and `final`, each of which must hold.  models: patterns
    such as `resnet*`; data: data sets; every pair of a model and a data set in the store that is meant
    must hold.  contradicts: ids of claims that say the reverse, of these data or of others.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]
    section: Word
    question: Literal["rq1", "rq2", "rq3", "more"]
    text: Word
    measure: Annotated[str, BeforeValidator(_known_measure)]
    is_: Annotated[Literal["higher", "lower", "within"], Field(alias="is")]
    strategies: Names | None = None
    against: Names | None = None
    order: Names | None = None
    against_exits: ExitNumbers | None = None
    against_models: Names | None = None
    against_data: DataSets | None = None
    exits: Annotated[Literal["overall"] | ExitNumbers, BeforeValidator(_exits_or_overall)] = "overall"
    by: Literal["each", "mean"] = "each"
    margin: float = 0.0
    models: Names = ("*",)
    data: DataSets = (DataSet(),)
    contradicts: Ids = ()
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
        if self.exits == "overall" and self.against_exits is not None:
            raise fail("needs exits, numbers or 'final', beside against_exits")
        measure = find_measure(self.measure)
        if self.exits != "overall" and not measure.per_exit:
            raise fail(f"must be overall: {self.measure} is not of an exit", "exits")
        return self


class Claims(Section):
    """A claims file. data_sets: what a name in it stands for.  data: what claims are about that do not
    say it themselves."""

    data_sets: dict[Word, DataSet] = Field({})
    data: DataSets = (DataSet(),)
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
        the file, as statements on whatever is there."""
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
