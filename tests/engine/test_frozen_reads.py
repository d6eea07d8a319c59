"""Which frozen values a group reads, how often, and what computes them."""

from collections.abc import Collection, Sequence

import pytest

from offramp.augment import Augment, View
from offramp.engine.cost import value_bytes
from offramp.engine.placement import (
    CacheCandidate,
    ValueName,
    cache_candidates,
    looks,
)
from offramp.engine.resolve import Node, Setting, resolve
from offramp.engine.values import IMAGES, Point, reads_of
from offramp.recipe import Recipe
from offramp.strategies import STRATEGIES
from support import NUMERICS, network

COUNTS = {"train": 100, "validation": 20}
NET = network("digits-cnn")
SIZES = value_bytes(NET)


def nodes(strategy: str, epochs: int = 5) -> tuple[Node, ...]:
    setting = Setting({}, Recipe(epochs=epochs), NUMERICS, seed=42)
    return resolve(STRATEGIES[strategy](4), NET, setting).nodes


def candidates(
    group: Sequence[Node], augment: Augment | None = None, cached: Collection[ValueName] = ()
) -> list[CacheCandidate]:
    return cache_candidates(group, SIZES, COUNTS, augment, cached)


def reads(every: Sequence[CacheCandidate]) -> dict[tuple[Point, str, View | None], int]:
    return {(candidate.value.point, *candidate.look): candidate.reads for candidate in every}


def test_a_phase_reads_train_every_epoch_and_twice_at_its_end() -> None:
    branch = nodes("branch-wise")[1]
    assert reads(candidates([branch])) == {
        (Point("tap", 1), "train", None): 5 + 2,
        (Point("tap", 1), "validation", None): 5,
    }


def test_phases_together_read_a_teacher_once_an_epoch_and_each_at_its_end() -> None:
    students = nodes("distillation")[1:]
    counts = reads(candidates(students))
    assert counts[Point("logits", 4), "train", None] == 5 + 2 * 3
    assert counts[Point("pooled", 2), "train", None] == 5 + 2
    assert {point for point, *_ in counts} == {
        Point("logits", 4),
        *(Point("pooled", k) for k in (1, 2, 3)),
    }


def test_what_trains_from_the_images_on_asks_for_nothing() -> None:
    (joint,) = nodes("joint")
    assert candidates([joint]) == [] and [value.point for value in reads_of(joint)] == [IMAGES]


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        (2, {("train", View(42, 0)): 3, ("train", View(42, 1)): 2}),
        (5, {}),  # each of them is seen once
        (None, {}),
    ],
)
def test_views_are_read_as_often_as_they_come_again(
    views: int | None, expected: dict[tuple[str, View], int]
) -> None:
    branch = nodes("branch-wise")[1]
    counts = reads(candidates([branch], Augment(flip=True, views=views)))
    plain = {("train", None): 2, ("validation", None): 5}
    assert {(split, view): n for (_, split, view), n in counts.items()} == expected | plain
    assert set(looks(Augment(flip=True, views=views), 42, 5)) == {*expected, *plain}


def test_sizes_written_out() -> None:
    branch = nodes("branch-wise")[2]  # begins at tap 2
    value = next(w for w in candidates([branch]) if w.look == ("validation", None))
    assert value.size == 20 * SIZES[Point("tap", 2)]


def test_what_is_held_is_not_asked_for() -> None:
    first = nodes("branch-wise")[1]
    (tap,) = {w.value for w in candidates([first])}
    cached = {(tap, ("train", None))}
    assert [w.look for w in candidates([first], cached=cached)] == [("validation", None)]
