"""The table of faults that were tried names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"


def test_each_fault_has_a_test_that_is_there() -> None:
    rows = re.findall(
        r"^\| (.+) \| (.+) \| (.+) \| `(\w+\.py)::(\w+)` \|$", PAGE.read_text(), re.MULTILINE
    )
    table = PAGE.read_text().split("| door | fault | what happens | test |\n|---|---|---|---|\n")[1]
    assert len(rows) == len(table.strip().splitlines()) > 40, "a row does not name its test"
    files = {path.name: path.read_text() for path in TESTS.rglob("test_*.py")}
    gone = [f"{file}::{test}" for *_, file, test in rows if f"\ndef {test}(" not in files.get(file, "")]
    assert gone == []
    assert [row[0] for row in rows] == sorted(row[0] for row in rows), "sorted by door"
