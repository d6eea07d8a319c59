"""Studies cut down: `scale: small`."""

from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from offramp.study.plan.plan import make_plan
from offramp.study.spec import file as spec
from support import CPU
from wording import refusal

CHEST: dict[str, Any] = {
    "strategies": ["joint"],
    "backbone": "resnet18",
    "data": {"name": "chestxray14", "size": 224},
    "recipe": {"epochs": 50, "patience": 10},
    "scale": "small",
}
DIGITS: dict[str, Any] = {
    "strategies": ["baseline"],
    "backbone": "digits-cnn",
    "data": {"name": "digits", "train_images": 1200},
    "recipe": {"epochs": 50},
}


def test_small_cuts_data_epochs_size_and_seeds() -> None:
    study = spec.parse(CHEST)
    assert study.recipe.epochs == 2 and study.recipe.patience == 10 and study.seeds == (42, 43)
    assert study.data.size == 64
    assert (study.data.train_images, study.data.test_images) == (494, 1235)
    many = spec.parse({**CHEST, "data": "cifar100"})
    assert many.data.train_images == 1000 and many.data.size is None  # 10 a class; 32 px as they are


@pytest.mark.parametrize(
    ("flags", "sizes"),
    [
        ([], [64, 46]),
        (["data.size=224"], [224, 160]),
        (["controls.0.size=100"], [64, 100]),
        (["data.size=48"], [48, 160]),
    ],
    ids=str,
)
def test_a_control_shrinks_as_its_study_does(flags: list[str], sizes: list[int]) -> None:
    study = spec.parse({**CHEST, "controls": [{"size": 160}]}, None, flags)
    assert [part.data.size for part in study.parts] == sizes


def test_counts_that_do_not_hold_are_not_used() -> None:
    """Ten classes of an ILSVRC tree hold fewer images than a hundred."""
    study = spec.parse({**CHEST, "data": {"name": "imagenet100", "wnids": "all"}})
    assert study.data.train_images is None and study.data.size == 64
    some = spec.parse({**CHEST, "data": {"name": "folder", "train_images": 5000}})
    assert some.data.train_images == 1000 and some.data.size is None


def test_what_is_smaller_already_stays_and_what_a_flag_sets_wins() -> None:
    smaller = {**CHEST, "data": {"name": "cifar10", "train_images": 100}, "recipe": {"epochs": 1}}
    study = spec.parse(smaller)
    assert (study.data.train_images, study.recipe.epochs) == (100, 1)
    won = spec.parse(smaller, None, ["recipe.epochs=7", "seeds=[1]"])
    assert (won.recipe.epochs, won.seeds, won.data.train_images) == (7, (1,), 100)


def test_a_flag_that_sets_a_whole_section_wins_with_what_it_says() -> None:
    flags = ["recipe={epochs: 7}", "data={name: digits, train_images: 1300}"]
    study = spec.parse({**DIGITS, "scale": "small"}, None, flags)
    assert (study.recipe.epochs, study.data.train_images) == (7, 1300)
    named = spec.parse({**CHEST, "scale": "small"}, None, ["data=cifar100"])  # says nothing of counts
    assert named.data.train_images == 1000


def test_a_small_study_has_the_keys_of_one_that_is_written_so() -> None:
    scaled = make_plan(spec.parse({**DIGITS, "scale": "small"}), CPU)
    written = {**DIGITS, "seeds": [42, 43], "data": {"name": "digits", "train_images": 1000}}
    plain = make_plan(spec.parse({**written, "recipe": {"epochs": 2}}), CPU)
    assert [t.id for t in scaled.trials] == [t.id for t in plain.trials]
    assert scaled.nodes.keys() == plain.nodes.keys()
    full = make_plan(spec.parse(DIGITS), CPU)
    assert not scaled.nodes.keys() & full.nodes.keys()


def test_another_scale_is_refused_in_one_line(snapshot: SnapshotAssertion) -> None:
    assert refusal(spec.parse, {**CHEST, "scale": "smal"}) == snapshot
