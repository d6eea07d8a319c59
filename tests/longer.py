"""Which cases of a test run with --long alone: those that show on more what the others show; and which
files --fast leaves out.

    pytest --junitxml=times.xml && python tests/longer.py times.xml      writes slow.txt anew
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

HERE = Path(__file__).parent
SLOW = HERE / "slow.txt"


@cache
def slow_files() -> frozenset[str]:
    """Files that --fast leaves out, below `tests`."""
    return frozenset(SLOW.read_text().splitlines())


def slow_file(path: Path) -> bool:
    """Whether --fast leaves a whole file of tests out."""
    return path.relative_to(HERE).as_posix() in slow_files()


def slow_by(times: Path) -> list[str]:
    """The slow files of a run: those whose tests take longer than all do on average, so that a machine's
    speed does not matter. times: what `--junitxml` wrote."""
    seconds: dict[str, list[float]] = {}
    for case in ElementTree.parse(times).iter("testcase"):
        parts = case.attrib["classname"].split(".")
        file = next(part for part in range(len(parts)) if parts[part].startswith("test_"))
        name = "/".join(parts[1 : file + 1]) + ".py"
        seconds.setdefault(name, []).append(float(case.attrib["time"]))
    every = [value for values in seconds.values() for value in values]
    limit = sum(every) / len(every)
    return sorted(name for name, values in seconds.items() if sum(values) > limit * len(values))


def long(*cases: Any) -> list[Any]:
    """Cases of a parametrized test, for --long."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long)
        for case in cases
    ]


def long_where(cases: Iterable[Any], costly: Callable[[Any], bool]) -> list[Any]:
    """All cases in their order, those that are `costly` for --long."""
    return [each for case in cases for each in (long(case) if costly(case) else [case])]


if __name__ == "__main__":
    SLOW.write_text("\n".join(slow_by(Path(sys.argv[1]))) + "\n")
