"""Studies that are to fit into a time."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from longer import long
from offramp.api.train.budget import MARGIN, choose, too_short
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.spec import file as spec
from support import CPU
from wording import refusal

STUDY: dict[str, Any] = {
    "seeds": [1],
    "strategies": ["two-stage", "separate"],
    "backbone": "digits-cnn",
    "data": "digits",
    "recipe": {"epochs": 40},
}


@cache
def planned(*settings: str) -> Plan:
    return make_plan(spec.parse(STUDY, None, settings), CPU)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_what_is_chosen_fits_and_uses_what_there_is(share: float) -> None:
    room = planned().executed * share
    chosen = choose(planned(), room)
    assert chosen.settings and 0.6 * MARGIN * room < chosen.macs <= MARGIN * room
    smaller = planned(*chosen.settings)
    assert 0.5 * MARGIN * room < smaller.executed <= chosen.macs


def test_more_of_the_epochs_goes_than_of_the_images() -> None:
    small = planned(*choose(planned(), planned().executed * 0.1).settings)
    epochs, images = small.study.recipe.epochs / 40, (small.study.data.train_images or 0) / 1348
    assert 0.35 < images < 0.55
    assert 0.7 * images**2 < epochs < 1.1 * images**2


def test_three_epochs_are_left_where_images_allow_it() -> None:
    assert planned(*choose(planned(), planned().executed * 0.02).settings).study.recipe.epochs == 3


def test_nothing_changes_where_all_of_it_fits() -> None:
    assert choose(planned(), 1e18).settings == ()


def test_what_is_chosen_are_ordinary_settings() -> None:
    chosen = choose(planned(), planned().executed * 0.1)
    written = spec.parse(STUDY)
    for setting in chosen.settings:
        name, _, value = setting.partition("=")
        section, field = name.split(".")
        setting = getattr(written, section)
        written = written.model_copy(update={section: replace(setting, **{field: int(value)})})
    mine, theirs = planned(*chosen.settings), make_plan(written, CPU)
    assert [t.id for t in mine.trials] == [t.id for t in theirs.trials]


def test_a_budget_for_not_even_one_epoch_is_refused(snapshot: SnapshotAssertion) -> None:
    assert refusal(choose, planned(), planned().executed * 1e-4) == snapshot


@pytest.mark.parametrize("share", [0.01, *long(0.02)])
def test_a_budget_in_which_nothing_is_learned_says_what_would_do(
    share: float, snapshot: SnapshotAssertion
) -> None:
    """A time that leaves some steps is no time; what is said to do, does, and a little less does not."""
    room = planned().executed * share
    advice = too_short(planned(), room)
    assert advice is not None
    words, needed = advice
    assert words == snapshot
    assert room < needed < planned().executed
    assert too_short(planned(), needed) is None and too_short(planned(), needed / 1.2) is not None


def test_smaller_steps_of_fewer_images_are_counted() -> None:
    """`build` takes 16 images a step where few are left: four times the steps, which may be enough."""
    room = planned().executed * 0.02
    usual = planned().study.recipe.batch_size
    assert too_short(planned(), room, lambda _: usual) == too_short(planned(), room) is not None
    assert too_short(planned(), room, lambda _: 1) is None


def test_a_study_may_ask_for_little() -> None:
    assert too_short(planned("recipe.epochs=1"), 1e18) is None
    assert too_short(planned(), planned().executed) is None


def test_a_long_test_is_cut_before_it_eats_the_time() -> None:
    room = planned().executed * 0.008
    chosen = choose(planned("recipe.epochs=1"), room)
    assert any(setting.startswith("data.test_images=") for setting in chosen.settings)
    assert chosen.macs <= MARGIN * room
