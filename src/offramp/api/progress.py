"""Work that says what it does, step by step, run to its end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")


def finished(steps: Generator[str, None, T], say: Callable[[str], object] | None = None) -> T:
    """The result of the work. say: called with each step."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
        if say is not None:
            say(step)
