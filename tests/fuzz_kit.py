"""Cases for the doors: values and bytes that somebody changed, and what must come of them.

A case is a number, from which `changed` and `harmed` make the same change again. A test has as many
cases as it says; `OFFRAMP_FUZZ=10000` asks for that many, and `OFFRAMP_FUZZ_FROM=60000` for others.
"""

import copy
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from offramp.errors import OfframpError

MOST = 2**20  # KiB that a door may take
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 2**31, 2**63, 2**64, 10**400, -0.0, 0.5, 1e308, float("nan")),
    *(float("inf"), "", "x", "\x1b[31m", "\u202e", "a" * 300, "../x", "a.py:b", "\ud800", "1", "a\nb"),
    *([], {}, [1, 2, 3], [[]], {"a": 1}, [None], ["x"], {"": {}}),
)


def cases(usual: int) -> Iterator[int]:
    """The numbers of a test's cases. Fails where they took much memory together."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first, count = os.environ.get("OFFRAMP_FUZZ_FROM", 0), os.environ.get("OFFRAMP_FUZZ", usual)
    yield from range(int(first), int(first) + int(count))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST


def fields(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where everything in a JSON value stands."""
    pairs = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(place for key, child in pairs for place in fields(child, (*path, key)))]


def changed(case: int, value: Any) -> Any:
    """A JSON value with one or two of its fields another, or gone."""
    chance = Random(case)
    value = copy.deepcopy(value)
    for _ in range(chance.randint(1, 2)):
        path = chance.choice(fields(value))
        if not path:
            if chance.random() < 0.9:
                continue  # the whole: seldom
            return chance.choice(ODD)
        holder = value
        for step in path[:-1]:
            holder = holder[step]
        if chance.random() < 0.3 and isinstance(holder, dict):
            del holder[path[-1]]
        elif chance.random() < 0.1 and isinstance(holder, dict):
            holder[chance.choice(["", "x", "\u202e"])] = chance.choice(ODD)
        else:
            holder[path[-1]] = copy.deepcopy(chance.choice(ODD))
    return value


def harmed(case: int, data: bytes) -> bytes:
    """Bytes of which some are others, more or gone."""
    chance = Random(case)
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(damaged))
        damaged[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
    if chance.random() < 0.1:
        del damaged[chance.randint(0, len(damaged)) :]
    return bytes(damaged)


@contextmanager
def little_memory() -> Iterator[None]:
    """At most MOST more of address space than there is now, where the system counts it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST * 1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def pipe(path: Path, _: bytes) -> None:
    os.mkfifo(path)


def endless(path: Path, _: bytes) -> None:
    """A device that never ends."""
    path.symlink_to("/dev/zero")


def sparse(path: Path, content: bytes) -> None:
    """What it was, then four terabytes that take no room on the disk."""
    path.write_bytes(content)
    os.truncate(path, 2**42)


HARMS = (pipe, endless, sparse)


def one_line(
    case: int, door: Callable[..., object], *args: Any, also: type[Exception] = OfframpError
) -> None:
    """An answer, or an error of one line that says something."""
    try:
        door(*args)
    except also as error:
        assert str(error) and "\n" not in str(error), case
    except Exception as error:
        raise AssertionError(f"case {case}") from error
