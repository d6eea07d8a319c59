"""Where frozen values are kept: what is worth its room, in which order, and never more than there is."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from offramp.engine.placement import CPU, PLACES, CacheCandidate, Medium, Placed, Speeds, place, seconds

UNIT = Speeds(macs=1.0, memory=1.0, disk=0.1, pixels=1.0)  # a byte a second from memory

LOOK = ("train", None)


def candidate(
    value: str, size: int, steps: Mapping[str, float], reads: int = 10, look: object = LOOK
) -> CacheCandidate:
    return CacheCandidate(value, look, size, reads, (*steps.items(), (value, 0.0)))  # type: ignore[arg-type]


def chosen(placed: Placed) -> dict[object, Medium]:
    return {value: where for (value, _), where in placed.items()}


def used(every: Sequence[CacheCandidate], placed: Placed, kind: Medium) -> int:
    return sum(candidate.size for candidate in every if placed.get(candidate.name) == kind)


def saved(every: Sequence[CacheCandidate], placed: Placed, speeds: Speeds = UNIT) -> float:
    return seconds(every, {}, speeds) - seconds(every, placed, speeds)


def best(every: Sequence[CacheCandidate], room: Mapping[Medium, int], places: Sequence[Medium]) -> float:
    """The most seconds that any placement saves, by trying all of them."""

    def fitting() -> Iterator[Placed]:
        for kinds in itertools.product((None, *places), repeat=len(every)):
            placed = {w.name: k for w, k in zip(every, kinds, strict=True) if k is not None}
            if all(used(every, placed, kind) <= room[kind] for kind in places):
                yield placed

    return max(saved(every, placed) for placed in fitting())


def test_seconds_of_a_placement_written_out() -> None:
    """Two heads on one trunk: segment a, 3 s, serves both; b, 5 s, the second."""
    first = candidate("first", 7, {"images": 1.0, "a": 3.0})
    second = candidate("second", 2, {"images": 1.0, "a": 3.0, "b": 5.0})
    both = [first, second]
    assert seconds(both, {}, UNIT) == 10 * (1 + 3 + 5)
    # One pass fills it; it is written once and read ten times; the other needs a and the images.
    assert seconds(both, {second.name: "memory"}, UNIT) == (1 + 3 + 5) + 11 * 2 + 10 * (1 + 3)
    media = {first.name: "memory", second.name: "disk"}
    assert seconds(both, media, UNIT) == (1 + 3 + 5) + 11 * 7 + 11 * 2 / 0.1


def test_what_is_computed_from_a_held_value_begins_there() -> None:
    tap = candidate("tap", 1, {"images": 1.0, "a": 3.0})
    above = CacheCandidate("above", LOOK, 50, 10, (*tap.steps, ("above", 2.0)))  # type: ignore[arg-type]
    assert seconds([tap, above], {tap.name: "memory"}, UNIT) == (1 + 3) + 11 * 1 + 10 * 2


def test_those_that_save_most_a_byte_go_first() -> None:
    """Of three values with as much work, the smallest; the largest on disk, or nowhere."""
    every = [
        candidate(name, size, {f"layer of {name}": 900.0})
        for name, size in zip("abc", (4, 3, 5), strict=True)
    ]
    assert chosen(place(every, {"memory": 3, "disk": 0}, UNIT)) == {"b": "memory"}
    assert chosen(place(every, {"memory": 7, "disk": 5}, UNIT)) == {
        "a": "memory",
        "b": "memory",
        "c": "disk",
    }


def test_more_work_counts_and_more_reads_count() -> None:
    deep, often = candidate("deep", 4, {"x": 90.0}), candidate("often", 4, {"y": 50.0}, reads=30)
    idle = candidate("idle", 4, {"z": 50.0})
    room: dict[Medium, int] = {"memory": 4, "disk": 0}
    assert chosen(place([idle, deep], room, UNIT)) == {"deep": "memory"}
    assert chosen(place([idle, deep, often], room, UNIT)) == {"often": "memory"}


def test_a_large_map_of_a_shallow_layer_stays_live_rather_than_on_disk() -> None:
    """MobileNet's first layer at 224 px: 1.6 MB an image, for 11 MMACs."""
    images = 50_000
    size = images * 32 * 112 * 112 * 4
    stem = {"stem layer": images * 10.8e6 / CPU.macs}
    cheap = candidate("stem", size, stem, reads=20)
    dear = candidate("stage", size // 8, {**stem, "stage's layers": images * 2e9 / CPU.macs}, reads=20)
    much: dict[Medium, int] = {"memory": 0, "disk": 2 * size}
    assert place([cheap], much, CPU) == {}
    assert chosen(place([cheap, dear], much, CPU)) == {"stage": "disk"}
    ram: dict[Medium, int] = {"memory": 2 * size, "disk": 0}
    assert chosen(place([dear], ram, CPU)) == {"stage": "memory"}


def test_what_is_read_once_stays_live() -> None:
    assert place([candidate("a", 1, {"x": 900.0}, reads=1)], {"memory": 9, "disk": 9}, UNIT) == {}


def test_a_layer_is_spared_only_when_nothing_live_needs_it() -> None:
    """Neither value saves anything alone: together they save the layer under both."""
    pair = [candidate(name, 5, {"a": 900.0}) for name in ("one", "two")]
    assert place(pair, {"memory": 9, "disk": 0}, UNIT) == {}
    assert set(chosen(place(pair, {"memory": 10, "disk": 0}, UNIT))) == {"one", "two"}
    assert chosen(place(pair, {"memory": 5, "disk": 5}, UNIT)) == {}


def test_one_large_value_beats_small_ones_that_are_in_its_way() -> None:
    """Where greedy alone goes wrong: the small one saves more a byte, and then nothing else fits."""
    small, large = candidate("small", 1, {"x": 40.0}), candidate("large", 100, {"y": 4000.0})
    assert chosen(place([small, large], {"memory": 100, "disk": 0}, UNIT)) == {"large": "memory"}


def test_looks_are_told_apart() -> None:
    both = [candidate("a", 4, {"x": 90.0}, look=(split, None)) for split in ("train", "validation")]
    assert set(place(both, {"memory": 4, "disk": 0}, UNIT)) == {both[0].name}
    assert len(place(both, {"memory": 8, "disk": 0}, UNIT)) == 2


# Against every placement there is


def drawn(chance: Random) -> list[CacheCandidate]:
    """Heads on a trunk of a few segments, some values from its middle, in one look."""
    trunk = [("images", 1.0), *((f"tap {i}", float(chance.randint(0, 60))) for i in (1, 2, 3))]
    tree = []
    every = [(depth, kind) for depth in (1, 2, 3) for kind in ("tap", "head")]
    for depth, kind in chance.sample(every, chance.randint(1, 5)):
        way = tuple(trunk[: depth + 1])
        if kind == "head":
            way = (*way, (f"head {depth}", float(chance.randint(0, 20))))
        size, reads = chance.randint(1, 40), chance.randint(1, 12)
        tree.append(CacheCandidate(way[-1][0], LOOK, size, reads, way))  # type: ignore[arg-type]
    return tree


TREES = st.builds(drawn, st.randoms(use_true_random=False))


@pytest.mark.parametrize(
    ("count", "disk"), [(300, 0), (100, 60), pytest.param(20_000, 0, marks=pytest.mark.long)]
)
def test_nearly_all_that_can_be_saved_is(count: int, disk: int) -> None:
    """The numbers in the docstring of `place`; `pytest --long -s` prints them."""
    chance, shares = Random(1), []
    for _ in range(count):
        every = drawn(chance)
        room: dict[Medium, int] = {"memory": chance.randint(0, 90 - disk // 2), "disk": disk}
        if (most := best(every, room, PLACES if disk else ["memory"])) > 1e-9:
            shares.append(saved(every, place(every, room, UNIT)) / most)
    whole = sum(share > 0.999 for share in shares) / len(shares)
    less = sum(share < 0.5 for share in shares) / len(shares)
    mean = sum(shares) / len(shares)
    print(f"{len(shares)}: {100 * mean:.2f} % of the most, all in {whole:.3f}, under half in {less:.5f}")
    assert mean > 0.98 and whole > 0.95 and less < 0.02


@settings(max_examples=60, deadline=None)
@given(TREES, st.integers(0, 90), st.integers(0, 90))
@example([], 0, 0)
def test_never_more_than_there_is_and_nothing_is_lost(
    every: list[CacheCandidate], memory: int, disk: int
) -> None:
    room: dict[Medium, int] = {"memory": memory, "disk": disk}
    placed = place(every, room, UNIT)
    assert all(used(every, placed, kind) <= room[kind] for kind in PLACES)
    assert saved(every, placed) >= 0
    assert placed == place(every, room, UNIT)


def test_first_come_first_served_would_fail_these_bounds() -> None:
    """That the bounds above can tell a good choice from a bad one."""
    cheap, dear = candidate("cheap", 10, {"x": 15.0}), candidate("dear", 10, {"y": 500.0})
    room: dict[Medium, int] = {"memory": 10, "disk": 0}
    first_come: Placed = {cheap.name: "memory"}
    most = best([cheap, dear], room, ["memory"])
    assert saved([cheap, dear], first_come) < 0.5 * most
    assert saved([cheap, dear], place([cheap, dear], room, UNIT)) == pytest.approx(most)
