"""Which cases of a test run with --long alone: those that show on more what the others show; and which
tests --fast leaves out.

    pytest --durations=0 --durations-min=0 > times.txt
    python tests/longer.py times.txt                     writes slow.txt anew
"""

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SLOW = HERE / "slow.txt"
LINE = re.compile(
    r"^([\d.]+)s (setup|call|teardown) +tests/(\S+?\.py)::(?:[A-Z]\w*::)?(\w+)", re.MULTILINE
)


@cache
def slow_tests() -> frozenset[str]:
    """Files, and `FILE::FUNCTION` of others, that --fast leaves out, below `tests`."""
    return frozenset(SLOW.read_text().splitlines())


def slow_file(path: Path) -> bool:
    """Whether --fast leaves a whole file of tests out."""
    return path.relative_to(HERE).as_posix() in slow_tests()


def slow_test(item: pytest.Item) -> bool:
    """Whether --fast leaves a test out."""
    name = item.name.partition("[")[0]
    return slow_file(item.path) or f"{item.path.relative_to(HERE).as_posix()}::{name}" in slow_tests()


def slow_by(times: str) -> list[str]:
    """The slow tests of a run, whatever the machine's speed: those that take twice as long as the mean,
    and whole files whose fixtures take that for each of their quick tests.

    Args:
        times: What pytest printed.
    """
    calls: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    fixtures: dict[str, float] = defaultdict(float)
    for seconds, stage, file, name in LINE.findall(times):
        if stage == "call":
            calls[file][name].append(float(seconds))
        else:
            fixtures[file] += float(seconds)
    tests = [value for names in calls.values() for values in names.values() for value in values]
    limit = 2 * (sum(tests) + sum(fixtures.values())) / len(tests)
    slow = []
    for file, names in calls.items():
        over = [name for name, values in names.items() if sum(values) > limit * len(values)]
        quick = sum(len(values) for name, values in names.items() if name not in over)
        whole = not quick or fixtures[file] > limit * quick
        slow += [file] if whole else [f"{file}::{name}" for name in over]
    return sorted(slow)


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
    SLOW.write_text("\n".join(slow_by(Path(sys.argv[1]).read_text())) + "\n")
