"""What the contenders of the tests make. Nothing here imports torch: a process is there at once."""

import os
from collections.abc import Callable, Iterator


def doubler() -> Callable[[float], float]:
    return lambda value: 2 * value


def counter(start: int) -> Callable[[], dict[str, int]]:
    """Counts how often it was asked; says in which process."""
    count = start

    def run() -> dict[str, int]:
        nonlocal count
        count += 1
        return {"asked": count, "process": os.getpid()}

    return run


def two() -> Iterator[int]:
    yield from (1, 2)


def environment() -> Callable[[], str | None]:
    return lambda: os.environ.get("BENCHMARK_TEST")


def unbuildable() -> Callable[[], float]:
    raise ValueError("nothing to build")


def failing() -> Callable[[], float]:
    def run() -> float:
        raise ValueError("no time today")

    return run


def dying() -> Callable[[], float]:
    def run() -> float:
        os._exit(3)

    return run
