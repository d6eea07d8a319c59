"""Programs: what a phase says of itself, and the programs that are refused."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from offramp.augment import Augment
from offramp.hashing import digest
from offramp.parts import Part, backbone, head, heads, path, segment, segments
from offramp.phase import CE, KD, LIVE, Features, Init, Phase, Program, adapters, check, describe
from offramp.policy.policy import Policy
from offramp.recipe import Recipe
from wording import refusal

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


BAD: dict[str, Program] = {
    "no phase": (),
    "a name twice": (GOOD, GOOD),
    "a teacher's name": (replace(GOOD, name="live"),),
    "the name of closing metrics": (replace(GOOD, name="final"),),
    "a number for a name": (replace(GOOD, name=3),),  # type: ignore[arg-type]
    "the trunk of no exit": (replace(GOOD, trunk=5),),
    "a trunk by its name": (replace(GOOD, trunk="own"),),  # type: ignore[arg-type]
    "an answer carried, or not": (replace(GOOD, carry=True),),
    "a teacher that is no phase": (replace(GOOD, teacher="nobody"),),
    "no loss": (replace(GOOD, loss=()),),
    "no tuple of terms": (replace(GOOD, loss=CE(1)),),  # type: ignore[arg-type]
    "zero loss": (replace(GOOD, loss=(CE(1, 0.0),)),),
    "weights of another kind": (replace(GOOD, sample_weights="hard"),),  # type: ignore[arg-type]
    "exit 5": (replace(GOOD, loss=(CE(5),)),),
    "head 5": (replace(GOOD, train=heads(1, 5)),),
    "an init out of range": (replace(GOOD, init=((head(6), Init.FRESH),)),),
    "nothing trains": (replace(GOOD, train=head(2)),),
    "a gradient times infinity": (replace(GOOD, backward={head(1): math.inf}),),
    "no teacher": (replace(GOOD, loss=(KD(1, 4),)),),
    "itself as teacher": (replace(GOOD, loss=(KD(1, 4),), teacher="first"),),
    "features of nobody": (replace(GOOD, loss=(Features(1, 4),)),),
    "features of several, frozen": (
        GOOD,
        replace(GOOD, name="b", loss=(Features(1, (1, 4)),), teacher="first"),
    ),
    "an adapter that nothing trains": (
        replace(GOOD, loss=(CE(1), Features(1, (1, 2, 4))), teacher=LIVE),
    ),
    "features of the final exit, for its head": (
        replace(GOOD, train=head(4), loss=(Features(4, 1),), teacher="before training"),
    ),
    "teacher exit 5": (GOOD, replace(GOOD, name="b", loss=(KD(1, 5),), teacher="first")),
}


@pytest.mark.parametrize("mistake", BAD)
def test_programs_that_cannot_run_are_refused(mistake: str, snapshot: SnapshotAssertion) -> None:
    line = refusal(check, BAD[mistake], 4)
    assert not BAD[mistake] or f"'{BAD[mistake][-1].name}'" in line
    assert line == snapshot


CANNOT: dict[str, Callable[[], Any]] = {
    "a negative weight": lambda: CE(2, -0.1),
    "no number": lambda: CE(1, math.nan),
    "an infinite weight": lambda: CE(1, math.inf),
    "exit 0": lambda: CE(0),
    "no temperature": lambda: KD(1, 4, temperature=0.0),
    "another mean": lambda: Features(1, 4, over="max"),  # type: ignore[arg-type]
    "negative epochs": lambda: Recipe(epochs=-1),
    "epochs in a text": lambda: Recipe(epochs="3"),
    "half an epoch": lambda: Recipe(epochs=2.5),
    "another optimizer": lambda: Recipe(optimizer="rmsprop"),
    "a negative crop": lambda: Augment(crop=-3),
    "head -1": lambda: head(-1),
    "segment a": lambda: segment("a"),  # type: ignore[arg-type]
    "heads from 0": lambda: heads(0, 2),
    "a backbone without exits": lambda: backbone(0),
    "an init for nothing": lambda: replace(GOOD, init="fresh"),
    "an init of a text": lambda: replace(GOOD, init=(("head 1", Init.FRESH),)),
    "a list of parts": lambda: replace(GOOD, train=[head(1), head(2)]),
    "an init of a number": lambda: replace(GOOD, init={1: Init.FRESH}),
    "a long init": lambda: replace(GOOD, init=tuple("a" * 99)),
    "a factor of nothing": lambda: replace(GOOD, backward=0.5),
    "a rate of nothing": lambda: replace(GOOD, rates=0.5),
    "a part in a text": lambda: replace(GOOD, train="head 1"),
    "one setting": lambda: replace(GOOD, recipe=("epochs", 5)),
    "a whole recipe": lambda: replace(GOOD, recipe=Recipe(epochs=5)),
    "a policy without order": lambda: Policy("confidence", (0, 1, 2), (0.5, 0.5, None)),
}


@pytest.mark.parametrize("mistake", CANNOT)
def test_what_cannot_be_is_refused(mistake: str, snapshot: SnapshotAssertion) -> None:
    assert refusal(CANNOT[mistake]) == snapshot


def test_a_phase_takes_a_list_of_losses_and_a_mapping_of_its_recipe() -> None:
    easy = replace(GOOD, loss=list(GOOD.loss), recipe={"epochs": 1})
    assert easy == replace(GOOD, recipe=(("epochs", 1),)) and hash(easy)
