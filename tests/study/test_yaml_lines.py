from __future__ import annotations

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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: 0\nb: [1,\nc: 2\n",
            "s.yaml:3: not valid YAML (expected ',' or ']', but got '<stream end>', "
            "in what began on line 2); mend it",
        ),
        ("a: 'x\n", "s.yaml:1: not valid YAML"),
        ("a: \x07\n", "s.yaml:1: not valid YAML (a control character); remove it"),
        ("a: 1\nb: 2\na: 3\n", "s.yaml:3: the key 'a' appears twice (line 1 has it already)"),
        ("a: 1\n---\nb: 2\n", "s.yaml:2: not valid YAML"),
        ("a: 1\nb: !!python/object:os.system {}\n", "s.yaml:2: the tag '!!python"),
        ("a: !mine 3\n", "s.yaml:1: the tag '!mine' means nothing here"),
        ("? [a]\n: 3\n", "s.yaml:1: a key must be a plain name"),
        ("a: &a [*a]\n", "s.yaml:1: nested more than 50 levels deep"),
        ("a: &a {<<: *a}\n", "s.yaml: nested without end"),
        ("[" * 1000, "s.yaml: nested without end"),
        ("a: *b\n", "s.yaml:1: not valid YAML (found undefined alias"),
    ],
)
def test_text_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(OfframpError) as caught:
        parse(text, "s.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


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
