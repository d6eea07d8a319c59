"""The table of faults that were tried names tests that are there."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"
HEAD = "| door | fault | what happens | test |\n|---|---|---|---|\n"
ROW = re.compile(r"\| ([^|]+) \| [^|]+ \| [^|]+ \| `(\w+\.py)::(\w+)` \|")


def test_each_fault_has_a_test_that_is_there() -> None:
    table = PAGE.read_text().split(HEAD)[1].strip().splitlines()
    rows = [(ROW.fullmatch(line), line) for line in table]
    assert [line for row, line in rows if row is None] == []
    named = [row.groups() for row, _ in rows if row is not None]
    files = {path.name: path.read_text() for path in TESTS.rglob("test_*.py")}
    gone = [f"{file}::{test}" for _, file, test in named if f"def {test}(" not in files.get(file, "")]
    assert gone == []
    doors = [door for door, _, _ in named]
    assert len(doors) > 40 and doors == sorted(doors), "sorted by door"
