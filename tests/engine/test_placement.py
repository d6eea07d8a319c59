"""Where frozen values are cached: the deepest first, and never more than there is room for."""

from collections.abc import Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st

from offramp.engine.placement import PLACES, CacheCandidate, Medium, Placed, SplitView, place
from offramp.engine.resolve import Source
from offramp.engine.values import FrozenValue, Point

TRAIN: SplitView = ("train", None)


def candidate(depth: int, size: int, reads: int = 10, look: SplitView = TRAIN) -> CacheCandidate:
    """The value at a tap."""
    sources = (Source(draw="initial"),) * depth
    return CacheCandidate(FrozenValue(Point("tap", depth), 42, sources), look, size, reads)


def depths(placed: Placed) -> dict[int, Medium]:
    return {value.point.index: where for (value, _), where in placed.items()}


def test_the_deepest_that_fits_goes_first_into_memory_then_onto_disk() -> None:
    every = [candidate(1, 3), candidate(2, 4), candidate(3, 5)]
    assert depths(place(every, {"memory": 5, "disk": 0})) == {3: "memory"}
    assert depths(place(every, {"memory": 4, "disk": 0})) == {2: "memory"}
    assert depths(place(every, {"memory": 5, "disk": 4})) == {3: "memory", 2: "disk"}
    assert depths(place(every, {"memory": 12, "disk": 0})) == dict.fromkeys((1, 2, 3), "memory")


def test_what_is_read_once_stays_live() -> None:
    assert place([candidate(1, 1, reads=1)], {"memory": 9, "disk": 9}) == {}


def test_looks_are_told_apart() -> None:
    both = [candidate(1, 4, look=(split, None)) for split in ("train", "validation")]
    assert set(place(both, {"memory": 4, "disk": 0})) == {both[0].name}
    assert len(place(both, {"memory": 8, "disk": 0})) == 2


CANDIDATES = st.lists(
    st.builds(candidate, st.integers(1, 5), st.integers(1, 40), st.integers(0, 3)),
    max_size=5,
    unique_by=lambda each: each.name,
)


@settings(max_examples=60, deadline=None)
@given(CANDIDATES, st.integers(-5, 90), st.integers(0, 90))
@example([], 0, 0)
def test_never_more_than_there_is_room_for(
    every: Sequence[CacheCandidate], memory: int, disk: int
) -> None:
    room: dict[Medium, int] = {"memory": memory, "disk": disk}
    placed = place(every, room)
    for medium in PLACES:
        used = sum(each.size for each in every if placed.get(each.name) == medium)
        assert used <= max(0, room[medium])
