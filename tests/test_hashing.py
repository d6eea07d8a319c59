"""One unambiguous text for a value, the same in every process and version."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from offramp.hashing import canonical, derive, digest, file_digest, from_text, plain
from offramp.parts import head, segments
from offramp.phase import CE, KD, Init


@dataclass(frozen=True)
class Inch:
    length: float


@dataclass(frozen=True)
class Metre:
    length: float


def test_the_text_is_sorted_tight_and_exact() -> None:
    assert canonical({"b": [1, 2.5], "a": None}) == '{"a":null,"b":[1,2.5]}'
    assert canonical(0.1 + 0.2) == "0.30000000000000004"
    assert canonical("τ") == '"\\u03c4"'


def test_digests_never_change() -> None:
    """Golden: a change here makes every stored result unreachable."""
    text = '{"a":[1,2.0,"x"],"b":{"length":1.0,"type":"Inch"}}'
    assert canonical({"b": Inch(1.0), "a": (1, 2.0, "x")}) == text
    assert digest({"b": Inch(1.0), "a": (1, 2.0, "x")}) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Inch(1.0), Metre(1.0)),
        (1, 1.0),
        (1, True),
        (1, "1"),
        (None, "None"),
        ([1, [2]], [[1], 2]),
        (["a,b"], ["a", "b"]),
        ({"a": 1}, [["a", 1]]),
        (CE(1), KD(1, teacher_exit=1)),
        (Init.FRESH, "fresh"),
        (0.1, 0.1 + 1e-17 + 2e-17),
    ],
)
def test_what_differs_hashes_differently(first: Any, second: Any) -> None:
    assert digest(first) != digest(second)


def test_what_is_equal_hashes_equally() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest((1, 2)) == digest([1, 2])
    assert digest(segments(1, 9) | head(2)) == digest(head(2) | segments(1, 9))
    assert digest({3, 1, 2}) == digest([1, 2, 3])


@pytest.mark.parametrize("value", [object(), print, b"bytes", 1j, Inch, {"a": object()}])
def test_what_has_no_stable_text_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot hash"):
        plain(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_numbers_that_json_has_not_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"(?i)out of range"):
        digest(value)


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"some bytes\x00\xff")
    assert file_digest(path) == hashlib.sha256(b"some bytes\x00\xff").hexdigest()


def test_seeds_of_purposes_are_independent_and_stable() -> None:
    assert derive(42, "order", 0) == derive(42, "order", 0)
    seeds = {
        derive(*purpose)
        for purpose in (
            (42,),
            (43,),
            (42, "order", 0),
            (42, "order", 1),
            (42, "order", "0"),
            (42, "orde", "r", 0),
            (42, "order0"),
            (42, "noise", "a", 1, 11),
            (42, "noise", "a", 11, 1),
        )
    }
    assert len(seeds) == 9 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", b"\xff"])
def test_text_that_is_no_json_is_one_kind_of_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        from_text(text)
