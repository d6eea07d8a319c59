from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from offramp.errors import OfframpError
from offramp.study.spec.yaml_lines import parse
from wording import refusal


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("1_000", 1000),
        ("12:30", "12:30"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("2024-01-01", "2024-01-01"),
        ("1_0", "1_0"),
        ("'3'", "3"),
        ("off", False),
        ("~", None),
        ("9" * 5000, "9" * 5000),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
        ("!!str 5", "5"),
        ("!!str &x 1e-3", "1e-3"),
        ("&x\n  !!str 7", "7"),
        ("&x 5", 5),
    ],
)
def test_scalars_are_what_they_look_like(text: str, value: Any) -> None:
    read = parse(f"a: {text}", "s").value["a"]
    assert (read, type(read)) == (value, type(value))


WRONG = [
    "a: 0\nb: [1,\nc: 2\n",
    "a: 'x\n",
    "a: \x07\n",
    "a: 1\nb: 2\na: 3\n",
    "a: 1\n---\nb: 2\n",
    "a: 1\nb: !!python/object:os.system {}\n",
    "a: !mine 3\n",
    "? [a]\n: 3\n",
    "a: &a [*a]\n",
    "a: &a {<<: *a}\n",
    "[" * 1000,
    "a: *b\n",
]


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_text_that_is_refused(text: str, snapshot: SnapshotAssertion) -> None:
    line = refusal(parse, text, "s.yaml")
    assert line.startswith("s.yaml:") and line == snapshot


def test_aliases_cannot_expand_without_end(snapshot: SnapshotAssertion) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert refusal(parse, "\n".join(lines), "s.yaml") == snapshot


def test_lines() -> None:
    document = parse("a: 1\n\nb:\n  - x\n  # a comment\n  - {c: 2,\n     d: 3}\n", "s.yaml")
    assert document.value == {"a": 1, "b": ["x", {"c": 2, "d": 3}]}
    assert document.lines == {
        ("a",): 1,
        ("b",): 3,
        ("b", 0): 4,
        ("b", 1): 6,
        ("b", 1, "c"): 6,
        ("b", 1, "d"): 7,
    }


@settings(deadline=None)
@given(st.text(alphabet="ab:-[]{}&*<>!|'\"#,?% \n\t1e.\\", max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        parse(text, "s.yaml")
    except OfframpError as error:
        assert len(str(error).splitlines()) == 1
