"""The tables of faults that were tried and of journeys name tests that are there."""

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


def test_the_journeys_are_those_that_are_marked() -> None:
    marked = set()
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text()
        one = r"^@pytest\.mark\.journey\n(?:@(?:.|\n(?!\n))*?\n)??def (\w+)\("
        every = r"^pytestmark = pytest\.mark\.journey$" if path.name == "test_journeys.py" else "(?!)"
        tests = re.findall(r"^def (test_\w+)\(", text, re.M) if re.search(every, text, re.M) else []
        marked |= {(path.name, test) for test in tests + re.findall(one, text, re.M)}
    section = PAGE.read_text().split("\n## Journeys\n")[1].split("\n## ")[0]
    assert sorted(re.findall(r"`(\w+\.py)::(\w+)` \|", section)) == sorted(marked)
