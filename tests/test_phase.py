"""Programs: what a phase says of itself, and the programs that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from offramp.augment import Augment
from offramp.errors import OfframpError
from offramp.hashing import digest
from offramp.parts import Part, backbone, head, heads, path, segment, segments
from offramp.phase import CE, KD, LIVE, Features, Init, Phase, Program, adapters, check, describe
from offramp.policy.policy import Policy
from offramp.recipe import Recipe
from refusal import refuses

GOOD = Phase("first", segments(1, 4) | heads(1, 4), (CE(1), CE(4)))


def test_parts() -> None:
    assert segments(2, 3) == segment(2) | segment(3) and segments(3, 2) == frozenset()
    assert backbone(3) == segments(1, 3) | head(3)
    assert path(2) == (Part("segment", 1), Part("segment", 2), Part("head", 2))
    assert str(Part("head", 3)) == "head 3"


def test_only_parts_that_the_loss_reaches_train() -> None:
    phase = Phase("p", segments(1, 4) | heads(1, 4), (CE(2),))
    assert phase.trained == segments(1, 2) | head(2)


def test_a_term_of_weight_zero_reads_nothing() -> None:
    phase = Phase("p", segments(1, 4) | heads(1, 4), (CE(1), CE(4, weight=0.0)))
    assert phase.terms == (CE(1),) and phase.exits == (1,)
    assert phase.trained == segment(1) | head(1)


def test_exits_are_sorted_and_named_once() -> None:
    assert Phase("p", head(1), (CE(3), CE(1), KD(1, teacher_exit=4))).exits == (1, 3)


def test_a_loss_in_words() -> None:
    loss = (CE(1, weight=0.3), KD(1, teacher_exit=4, weight=0.9), CE(4))
    assert describe(loss) == "0.3·CE(1) + 0.9·KD(4→1, τ=3) + CE(4)"


def test_features_in_words_and_their_adapters() -> None:
    every = (1, 2, 4)
    loss = (Features(2, 4, 0.03, "sum"), *(Features(k, every) for k in every), Features(1, 4))
    words = "0.03·features(4→2, sum) + features(1,2,4→1, mean)"
    assert describe(loss[:2]) == words and adapters(loss) == ((1, 4), (2, 4))


@pytest.mark.parametrize(("field", "value"), [("init", Init.FRESH), ("backward", 0.5)])
def test_parts_are_given_something_by_a_mapping_or_pairs(field: str, value: Any) -> None:
    pairs = ((head(1), value), (segment(1), value))
    phase = replace(GOOD, **{field: pairs})
    assert getattr(phase, field) == pairs
    for form in (dict(pairs), list(pairs)):
        assert replace(GOOD, **{field: form}) == phase and hash(replace(GOOD, **{field: form}))


def test_phases_are_values() -> None:
    assert replace(GOOD) == GOOD and hash(GOOD) == hash(replace(GOOD))
    assert digest(GOOD) == digest(replace(GOOD)) != digest(replace(GOOD, trunk=1))


def test_a_good_program_passes() -> None:
    taught = Phase("second", head(1), (KD(1, teacher_exit=4),), teacher="first")
    check((GOOD, taught, replace(taught, name="third", init=((head(4), Init.FRESH),))), 4)


BAD: dict[str, tuple[Program, str]] = {
    "no phase": ((), "no phases; return at least one"),
    "a name twice": ((GOOD, GOOD), "'first' appears twice"),
    "a teacher's name": ((replace(GOOD, name="live"),), "'live' has a name that means something else"),
    "the name of closing metrics": ((replace(GOOD, name="final"),), "'final' has a name that means"),
    "no loss": ((replace(GOOD, loss=()),), "'first' has no loss"),
    "zero loss": ((replace(GOOD, loss=(CE(1, 0.0),)),), "'first' has no loss"),
    "exit 5": ((replace(GOOD, loss=(CE(5),)),), "'first' names an exit outside 1 to 4"),
    "head 5": ((replace(GOOD, train=heads(1, 5)),), "names an exit outside"),
    "an init out of range": ((replace(GOOD, init=((head(6), Init.FRESH),)),), "names an exit outside"),
    "nothing trains": ((replace(GOOD, train=head(2)),), "'first' trains nothing that its loss reads"),
    "no teacher": ((replace(GOOD, loss=(KD(1, 4),)),), "distills from nobody; give teacher="),
    "itself as teacher": (
        (replace(GOOD, loss=(KD(1, 4),), teacher="first"),),
        "distills from 'first'.*not an earlier phase",
    ),
    "features of nobody": ((replace(GOOD, loss=(Features(1, 4),)),), "distills from nobody"),
    "features of several, frozen": (
        (GOOD, replace(GOOD, name="b", loss=(Features(1, (1, 4)),), teacher="first")),
        "several exits of a frozen teacher, which has no adapters",
    ),
    "an adapter that nothing trains": (
        (replace(GOOD, loss=(CE(1), Features(1, (1, 2, 4))), teacher=LIVE),),
        r"features of exit 2 through an adapter that nothing trains; add Features\(2, \(1, 2, 4\)\)",
    ),
    "features of the final exit, for its head": (
        (replace(GOOD, train=head(4), loss=(Features(4, 1),), teacher="before training"),),
        "trains nothing that its loss reads",
    ),
    "teacher exit 5": (
        (GOOD, replace(GOOD, name="b", loss=(KD(1, 5),), teacher="first")),
        "'b' names an exit outside",
    ),
}


@pytest.mark.parametrize("mistake", BAD)
def test_programs_that_cannot_run_are_refused(mistake: str) -> None:
    program, words = BAD[mistake]
    refuses(words, check, program, 4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CE(2, -0.1), r"CE(weight=-0.1): input should be greater than or equal to 0"),
        (lambda: CE(1, math.nan), "CE(weight=nan)"),
        (lambda: CE(1, math.inf), "CE(weight=inf)"),
        (lambda: CE(0), "CE(exit=0)"),
        (
            lambda: KD(1, 4, temperature=0.0),
            "KD(temperature=0.0): input should be greater than or equal to 0.01",
        ),
        (lambda: Features(1, 4, over="max"), "input should be 'mean' or 'sum'"),
        (lambda: Recipe(epochs=-1), "Recipe(epochs=-1): input should be greater than or equal to 1"),
        (lambda: Recipe(epochs="3"), "Recipe(epochs='3'): input should be a valid integer"),
        (lambda: Recipe(epochs=2.5), "Recipe(epochs=2.5): input should be a valid integer"),
        (lambda: Recipe(optimizer="rmsprop"), "input should be 'sgd', 'adam' or 'adamw'"),
        (lambda: Augment(crop=-3), "Augment(crop=-3)"),
        (lambda: head(-1), "there is no head -1; exits count from 1"),
        (lambda: segment("a"), "there is no segment 'a'"),
        (lambda: heads(0, 2), "there is no head 0"),
        (lambda: backbone(0), "there is no head 0"),
        (lambda: replace(GOOD, init="fresh"), "write init={head(1): Init.FRESH}"),
        (lambda: replace(GOOD, init=(("head 1", Init.FRESH),)), "write init={head(1): Init.FRESH}"),
        (lambda: replace(GOOD, train=[head(1), head(2)]), "write train=head(1) | segment(1)"),
        (lambda: replace(GOOD, init={1: Init.FRESH}), "write init={head(1): Init.FRESH}"),
        (lambda: replace(GOOD, init=tuple("a" * 99)), "'a', 'a'…; write init="),
        (lambda: replace(GOOD, backward=0.5), "cannot take backward=0.5; write backward={head(1): 0.5}"),
        (lambda: replace(GOOD, train="head 1"), "'first' cannot take train='head 1'"),
        (lambda: replace(GOOD, recipe=("epochs", 5)), "write recipe={'epochs': 5}"),
        (lambda: replace(GOOD, recipe=Recipe(epochs=5)), "write recipe={'epochs': 5}"),
        (lambda: Policy("confidence", (0, 1, 2), (0.5, 0.5, None)), "exits must be ascending"),
    ],
)
def test_what_cannot_be_is_not_made(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(OfframpError) as caught:
        make()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_phase_takes_a_list_of_losses_and_a_mapping_of_its_recipe() -> None:
    easy = replace(GOOD, loss=list(GOOD.loss), recipe={"epochs": 1})
    assert easy == replace(GOOD, recipe=(("epochs", 1),)) and hash(easy)
