"""Which cases of a test run with --long alone: those that show on more what the others show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def long(*cases: Any) -> list[Any]:
    """Cases of a parametrized test, for --long."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long)
        for case in cases
    ]


def long_where(cases: Iterable[Any], costly: Callable[[Any], bool]) -> list[Any]:
    """All cases in their order, those that are `costly` for --long."""
    return [each for case in cases for each in (long(case) if costly(case) else [case])]
