"""Which frozen values a group reads, how often, and what computes them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest

from offramp.augment import Augment, View
from offramp.engine.cost import value_bytes
from offramp.engine.placement import (
    MOVES,
    CacheCandidate,
    Speeds,
    ValueName,
    cache_candidates,
    looks,
)
from offramp.engine.resolve import Node, Setting, resolve
from offramp.engine.values import IMAGES, Point, reads_of
from offramp.parts import Part
from offramp.recipe import Recipe
from offramp.strategies import STRATEGIES
from support import NUMERICS, network

SPEEDS = Speeds(macs=2.0, memory=4.0, disk=1.0, pixels=8.0)
COUNTS = {"train": 100, "validation": 20}
NET = network("digits-cnn")
SIZES = value_bytes(NET)


def nodes(strategy: str, epochs: int = 5) -> tuple[Node, ...]:
    setting = Setting({}, Recipe(epochs=epochs), NUMERICS, seed=42)
    return resolve(STRATEGIES[strategy](4), NET, setting).nodes


def asked(
    group: Sequence[Node], augment: Augment | None = None, held: Collection[ValueName] = ()
) -> list[CacheCandidate]:
    return cache_candidates(group, NET, SIZES, COUNTS, augment, SPEEDS, held)


def reads(found: Sequence[CacheCandidate]) -> dict[tuple[Point, str, View | None], int]:
    return {(one.value.point, *one.look): one.reads for one in found}


def test_a_phase_reads_train_every_epoch_and_twice_at_its_end() -> None:
    branch = nodes("branch-wise")[1]
    assert reads(asked([branch])) == {
        (Point("tap", 1), "train", None): 5 + 2,
        (Point("tap", 1), "validation", None): 5,
    }


def test_phases_together_read_a_teacher_once_an_epoch_and_each_at_its_end() -> None:
    students = nodes("distillation")[1:]
    found = reads(asked(students))
    assert found[Point("logits", 4), "train", None] == 5 + 2 * 3
    assert found[Point("pooled", 2), "train", None] == 5 + 2
    assert {point for point, *_ in found} == {
        Point("logits", 4),
        *(Point("pooled", k) for k in (1, 2, 3)),
    }


def test_what_trains_from_the_images_on_asks_for_nothing() -> None:
    (joint,) = nodes("joint")
    assert asked([joint]) == [] and [value.point for value in reads_of(joint)] == [IMAGES]


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
    found = reads(asked([branch], Augment(flip=True, views=views)))
    plain = {("train", None): 2, ("validation", None): 5}
    assert {(split, view): n for (_, split, view), n in found.items()} == expected | plain
    assert set(looks(Augment(flip=True, views=views), 42, 5)) == {*expected, *plain}


def test_sizes_and_steps_written_out() -> None:
    branch = nodes("branch-wise")[2]  # begins at tap 2
    one = next(w for w in asked([branch]) if w.look == ("validation", None))
    assert one.size == 20 * SIZES[Point("tap", 2)]
    expected = {IMAGES: 20 * 64 / 8}  # 8x8 pixels, one channel
    for index in (1, 2):
        moved = MOVES * SIZES[Point("tap", index)] / 4
        expected[Point("tap", index)] = 20 * (NET.macs(Part("segment", index)) / 2 + moved)
    assert [value.point for value, _ in one.steps] == list(expected)
    assert [cost for _, cost in one.steps] == pytest.approx(list(expected.values()))


def test_what_is_held_is_not_asked_for_and_steps_begin_there() -> None:
    first, second = nodes("branch-wise")[1:3]
    (tap,) = {w.value for w in asked([first])}
    (above,) = {w.value for w in asked([second])}
    assert above.before == tap
    held = {(tap, ("train", None))}
    assert [w.look for w in asked([first], held=held)] == [("validation", None)]
    steps = {w.look[0]: [value.point for value, _ in w.steps] for w in asked([second], held=held)}
    taps = [Point("tap", 1), Point("tap", 2)]
    assert steps == {"train": taps, "validation": [IMAGES, *taps]}
