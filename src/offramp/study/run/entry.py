"""Where a task begins on a machine of a cluster: before torch is imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing


def work(order: str) -> Iterator[str]:
    """Do what an order says; yields events as they happen, a line of JSON each."""
    from offramp.process import prepare

    prepare()
    from offramp.study.run.worker import carry_out

    with closing(carry_out(order)) as lines:  # type: ignore[type-var]  # a generator
        yield from lines


def work_through(order: str) -> list[str]:
    """Do what an order says; all events, at its end."""
    return list(work(order))
