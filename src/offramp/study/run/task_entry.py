"""Where a task begins on a machine of a cluster: before torch is imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing


def work(order: str) -> Iterator[str]:
    """Do what an order of `offramp.study.run.task` says; yields what happens, a line each."""
    from offramp.process import prepare

    prepare()
    from offramp.study.run.task import carry_out

    with closing(carry_out(order)) as lines:  # type: ignore[type-var]  # a generator
        yield from lines


def work_through(order: str) -> list[str]:
    """The same, said when all is done."""
    return list(work(order))
