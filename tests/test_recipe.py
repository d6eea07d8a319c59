"""Learning rates over time, and when a phase stops."""

import copy
import inspect
import math
import pickle
from dataclasses import fields, replace
from typing import Any, Literal

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from offramp.recipe import Recipe, best_epoch, clash, finished
from wording import refusal

Schedule = Literal["triangular", "one-cycle"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(("lr", "'learning_rate'"), ("wd", "'weight_decay'"), ("epoch", "'epochs'")),
        *((name, f"options={{'{name}'") for name in ("temperature", "joint_weights")),
    ],
)
def test_a_setting_that_is_none_is_named_with_what_was_meant(
    name: str, meant: str, snapshot: SnapshotAssertion
) -> None:
    line = refusal(Recipe, **{name: 0.1})
    assert f"'{name}'" in line and meant in line and line == snapshot


def test_tools_show_its_settings() -> None:
    parameters = inspect.signature(Recipe).parameters
    assert list(parameters) == [each.name for each in fields(Recipe)]
    assert parameters["epochs"].default == 20


def test_a_recipe_is_copied_and_pickled_as_any_dataclass() -> None:
    recipe = Recipe(7, learning_rate=0.1)
    assert pickle.loads(pickle.dumps(recipe)) == copy.deepcopy(recipe) == recipe
    assert replace(recipe, epochs=8) == Recipe(epochs=8, learning_rate=0.1)


def test_a_constant_rate() -> None:
    recipe = Recipe(epochs=4, learning_rate=0.1, learning_rate_scale=0.1)
    assert [recipe.rate(p) for p in (0.0, 0.5, 3.9)] == pytest.approx([0.01] * 3)


def test_a_cosine_falls_to_zero() -> None:
    recipe = Recipe(epochs=10, learning_rate=0.2, schedule="cosine")
    for progress in (0.0, 2.5, 5.0, 7.5):
        expected = 0.2 * (1 + math.cos(math.pi * progress / 10)) / 2
        assert recipe.rate(progress) == pytest.approx(expected)
    assert recipe.rate(0.0) == 0.2 and recipe.rate(5.0) == pytest.approx(0.1)
    assert 0 < recipe.rate(9.99) < 1e-5


def test_steps_come_at_shares_of_the_epochs() -> None:
    recipe = Recipe(epochs=8, learning_rate=1.0, schedule="step", step_at=(0.5, 0.75), step_factor=0.1)
    rates = [recipe.rate(float(epoch)) for epoch in range(8)]
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert recipe.rate(3.99) == 1.0
    listed: Any = [0.5, 0.75]
    assert Recipe(step_at=listed) == Recipe(step_at=(0.5, 0.75))


def test_a_warm_up_is_linear_and_comes_first() -> None:
    recipe = Recipe(epochs=10, learning_rate=0.4, warmup_epochs=2.0)
    assert [recipe.rate(p) for p in (0.0, 0.5, 1.0, 2.0, 9.0)] == pytest.approx([0, 0.1, 0.2, 0.4, 0.4])
    cosine = Recipe(epochs=10, learning_rate=0.4, warmup_epochs=2.0, schedule="cosine")
    assert cosine.rate(1.0) == pytest.approx(0.2)
    assert cosine.rate(2.0) == 0.4 and cosine.rate(6.0) == pytest.approx(0.2)


@pytest.mark.parametrize("schedule", ["triangular", "one-cycle"])
def test_a_rate_that_rises_and_falls(schedule: Schedule) -> None:
    shares = {"peak_at": 0.25, "start_factor": 0.2, "end_factor": 0.1}
    recipe = Recipe(epochs=8, learning_rate=2.0, schedule=schedule, **shares)
    assert [recipe.rate(p) for p in (0.0, 2.0)] == pytest.approx([0.4, 2.0])
    assert recipe.rate(7.9999) == pytest.approx(0.2, abs=1e-3)
    assert [recipe.rate(p) for p in (1.0, 5.0)] == pytest.approx([1.2, 1.1])  # half way, both
    rises = [recipe.rate(p) for p in (0.0, 0.5, 1.0, 1.5, 2.0)]
    assert rises == sorted(rises)
    assert recipe.rate(0.5) == pytest.approx(0.8) if schedule == "triangular" else recipe.rate(0.5) < 0.8


def test_one_cycle_is_torchs() -> None:
    recipe = Recipe(epochs=10, learning_rate=0.3, schedule="one-cycle", end_factor=4e-6)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    steps = 1001
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.3, total_steps=steps, pct_start=0.3, cycle_momentum=False
    )
    for step in range(steps - 1):
        if step % 50 == 0:  # theirs ends on its last step, ours after it
            assert recipe.rate(10 * step / steps) == pytest.approx(theirs.get_last_lr()[0], abs=2e-3)
        optimizer.step()
        theirs.step()


def test_a_warm_up_as_long_as_training_never_divides_by_zero() -> None:
    recipe = Recipe(epochs=2, learning_rate=0.4, warmup_epochs=2.0, schedule="cosine")
    assert all(math.isfinite(recipe.rate(p / 10)) for p in range(20))


@pytest.mark.parametrize(
    ("losses", "best"),
    [([1.0], 0), ([3.0, 1.0, 2.0], 1), ([2.0, 1.0, 1.0], 1), ([1.0, 1.0], 0), ([3.0, 2.0, 1.0], 2)],
)
def test_the_best_epoch_is_the_first_lowest(losses: list[float], best: int) -> None:
    assert best_epoch(losses) == best


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([], False),
        ([1.0], False),
        ([1.0, 2.0], False),  # one epoch without progress
        ([1.0, 2.0, 2.0], True),  # two
        ([1.0, 1.0, 1.0], True),  # as good is not lower
        ([3.0, 4.0, 2.0, 2.5], False),
        ([3.0, 4.0, 2.0, 2.5, 2.6], True),
    ],
)
def test_patience_counts_epochs_without_a_lower_loss(losses: list[float], stops: bool) -> None:
    assert finished(losses, Recipe(epochs=100, patience=2)) is stops


def test_without_patience_only_the_epochs_end_a_phase() -> None:
    recipe = Recipe(epochs=3)
    rising = [1.0, 2.0, 3.0]
    assert [finished(rising[:n], recipe) for n in range(4)] == [False, False, False, True]
    assert finished([3.0, 2.0, 1.0], Recipe(epochs=3, patience=9))


@pytest.mark.parametrize(
    ("select", "patience", "best"),
    [
        ("auto", None, False),
        ("auto", 3, True),
        ("best", None, True),
        ("best", 3, True),
        ("last", None, False),
        ("last", 3, False),
    ],
)
def test_which_weights_are_handed_on(select: str, patience: int | None, best: bool) -> None:
    assert Recipe(select=select, patience=patience).selects_best is best  # type: ignore[arg-type]


def test_fields_that_cannot_hold_are_named() -> None:
    assert clash(Recipe()) is None
    for recipe, field in (
        (Recipe(epochs=2, warmup_epochs=3.0), "warmup_epochs"),
        (Recipe(nesterov=True, momentum=0.0), "nesterov"),
    ):
        conflict = clash(recipe)
        assert conflict is not None and conflict[0] == field
    assert clash(Recipe(optimizer="adam", nesterov=True, momentum=0.0)) is None
