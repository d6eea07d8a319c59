"""Which cases of a test run with --long alone: those that show on more what the others show; and which
files --fast leaves out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
WHOLE = ("benchmarks", "bundle", "cli", "contract")
"""Folders of tests of the program as a whole: slow ones."""
QUICK = ("test_adapter.py", "test_render.py", "test_preprocessing.py")
"""Files there that take two seconds at most."""
TRAINS = re.compile(
    r"^(?:import subprocess|from subprocess|from offramp\.study\.run\.run import .*\brun\b"
    r"|from forks import .*\bforked\b|from \w+ import .*\b(?:run_all|browser|finished)\b"
    r"|pytestmark = pytest\.mark\.slow$)",
    re.MULTILINE,
)
"""What others say that start processes, run studies or are marked: slow as well."""


@cache
def slow_file(path: Path) -> bool:
    """Whether --fast leaves a whole file of tests out."""
    whole = path.relative_to(HERE).parts[0] in WHOLE and path.name not in QUICK
    return whole or TRAINS.search(path.read_text()) is not None


def long(*cases: Any) -> list[Any]:
    """Cases of a parametrized test, for --long."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long)
        for case in cases
    ]


def long_where(cases: Iterable[Any], costly: Callable[[Any], bool]) -> list[Any]:
    """All cases in their order, those that are `costly` for --long."""
    return [each for case in cases for each in (long(case) if costly(case) else [case])]
