"""Cases of hypothesis for the doors: values and bytes that somebody changed, and what must come of them.

`OFFRAMP_FUZZ=10000` asks for that many cases of each, at random; by default there are few, the same each
time.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from offramp.errors import OfframpError

fuzzed = settings(
    max_examples=int(os.environ.get("OFFRAMP_FUZZ", "60")),
    deadline=None,
    derandomize="OFFRAMP_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
    database=None,
)
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, 7]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["\x1b[31m", "a" * 300, "../x", "a.py:b", "\ud800"]),
    st.just([]),
    st.just({}),
    st.lists(st.integers(), max_size=3),
)


def fields(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where everything in a JSON value stands."""
    pairs = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(found for key, one in pairs for found in fields(one, (*path, key)))]


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one or two of its fields another, or gone."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(fields(value)))
        if not path:
            return draw(odd)
        holder = value
        for step in path[:-1]:
            holder = holder[step]
        if draw(st.booleans()) and isinstance(holder, dict):
            del holder[path[-1]]
        else:
            holder[path[-1]] = draw(odd)
    return value


@st.composite
def harmed(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes of which some are others, more or gone."""
    made = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(made)))
        made[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(made)


def one_line(door: Callable[..., object], *given: Any, also: type[Exception] = OfframpError) -> None:
    try:
        door(*given)
    except also as error:
        assert str(error) and "\n" not in str(error)
