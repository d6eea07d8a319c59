"""A kind that nothing knows is refused, and never taken for another one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from offramp import device as devices
from offramp.engine.cache import Cache
from offramp.engine.images import Images
from offramp.engine.losses import LossContext, objective, sample_weights
from offramp.engine.resolve import Setting, drawn, phase_recipe
from offramp.engine.settings import applied
from offramp.engine.trainee import groups, optimizer
from offramp.engine.values import Point, advance
from offramp.numerics import DEFAULTS
from offramp.parts import head
from offramp.phase import CE, Features, Phase, Term, describe, notes, students, teachers
from offramp.recipe import Recipe
from support import CPU, NUMERICS, network, tiny_data

LABELS = torch.tensor([0, 1])
LOGITS = {1: torch.zeros(2, 3)}
PHASE = Phase("one", head(1), (CE(1),))


@dataclass(frozen=True)
class Unheard:
    """A term, or weights of images, that somebody has not finished."""

    exit: int = 1
    weight: float = 1.0


def other(value: Any, **fields: Any) -> Any:
    """A copy whose fields are not checked."""
    copy = replace(value)
    for name, field in fields.items():
        object.__setattr__(copy, name, field)
    return copy


def recipe(**fields: Any) -> Any:
    return other(Recipe(), **fields)


def summed_features() -> Any:
    term = other(Features(1, 4), over="unheard")
    context = LossContext(features={term: (torch.zeros(2, 5), torch.zeros(2, 5))})
    return objective((term,), LOGITS, {}, LABELS, context)


def with_precision() -> None:
    with applied(other(NUMERICS, precision="unheard")):
        pass


TERM: Any = Unheard()
CASES: dict[str, Callable[[], Any]] = {
    "a term in the loss": lambda: objective((TERM,), LOGITS, {}, LABELS),
    "a term in words": lambda: describe((TERM,)),
    "a term's exits": lambda: students(TERM),
    "a term's teacher": lambda: teachers(TERM),
    "a term's parts": lambda: other(PHASE, loss=(TERM,)).trained,
    "what features are summed over": summed_features,
    "weights of images": lambda: sample_weights(TERM, [LOGITS[1]] * 2, LABELS),
    "what an exit carries": lambda: notes(other(PHASE, carry=TERM)),
    "a start": lambda: drawn(other(PHASE, init=((head(1), TERM),)), network("digits-cnn")),
    "a budget": lambda: phase_recipe(PHASE, other(Setting({}, Recipe(), NUMERICS, 1), budget="x"), 1),
    "a schedule": lambda: recipe(schedule="unheard").rate(1),
    "the weights handed on": lambda: recipe(select="unheard").selects_best,
    "an optimizer": lambda: optimizer([], recipe(optimizer="unheard"), False),
    "weights of classes": lambda: Images(tiny_data(), CPU).class_weights(recipe(class_weights="x")),
    "a precision": with_precision,
    "a kind of room": lambda: Cache(1, 1, Path())._allocated(TERM, (), 1, 1),
    "a point's part": lambda: Point(TERM, 1).part,
    "the point before": lambda: Point(TERM, 1).before,
    "a value's point": lambda: advance(network("digits-cnn"), other(Point("tap", 1), kind="x"), ()),
}


@pytest.mark.parametrize("case", CASES)
def test_a_kind_that_nothing_knows_is_refused(case: str) -> None:
    with pytest.raises(AssertionError, match="unreachable"):
        CASES[case]()


def test_every_class_of_devices_has_all_that_differs() -> None:
    assert set(devices.CLASSES) == DEFAULTS.keys()
    assert set(devices.CLASSES) - devices._COLLECTIVES.keys() == set(devices._ON_REQUEST)
    assert devices.collectives(torch.device("mps")) is None


def test_every_known_term_passes_the_same_doors() -> None:
    """The control: what is refused above is the unknown kind alone."""
    from typing import get_args

    for kind in get_args(Term):
        term = (
            kind(exits=(1, 2))
            if "exits" in kind.__dataclass_fields__
            else kind(1, *([2] if "teacher_exit" in kind.__dataclass_fields__ else []))
        )
        assert describe((term,)) and students(term) and isinstance(teachers(term), tuple)
    assert groups({}, torch.nn.Identity(), Recipe()) == []
