"""Content hashes: one unambiguous text for a value, and its SHA-256; JSON documents under a seal."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

_MARK = "younger than the first keys"
YOUNGER: Mapping[str, Any] = MappingProxyType({_MARK: True})
"""The metadata of a dataclass field that is left out of keys while it stands at its default.
That default never changes: finished work of the old one would be taken for the new one's."""

_LEAVES = (str, int, float, bool, type(None))


def plain(value: Any) -> Any:
    """`value` in the types of JSON. Dataclasses carry their type's name, so that two kinds of thing
    with equal fields never hash alike; sets are sorted.

    Raises:
        TypeError: its text would not be stable, as of an object's address or a callable.
    """
    if type(value) in _LEAVES:  # most of what a study hashes, so it is asked first
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
        fields = {f.name: plain(v) for f, v in pairs if not f.metadata.get(_MARK) or v != f.default}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(v) for v in value), key=canonical)
    if isinstance(value, _LEAVES):  # of a subclass, such as NumPy's float64
        return value
    raise TypeError(f"cannot hash a {type(value).__name__}: {value!r}")


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, exact floats (`repr`), no NaN."""
    return json.dumps(
        plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def differing(first: Any, second: Any, lists: bool = True) -> dict[str, tuple[Any, Any]]:
    """What of two JSON documents differs. lists: whether they are compared item by item, or else each as
    a whole.

    Returns:
        Both values by dotted name, `nothing` where a document has none.

    Example:
        >>> differing({"a": {"b": 1}, "c": [1, 2]}, {"a": {"b": 2}, "c": [1, 3]})
        {'a.b': (1, 2), 'c.1': (2, 3)}
    """
    mine, theirs = _flat(first, lists), _flat(second, lists)
    absent = "nothing"
    return {
        name: (mine.get(name, absent), theirs.get(name, absent))
        for name in dict.fromkeys((*mine, *theirs))
        if mine.get(name, absent) != theirs.get(name, absent)
    }


def _flat(value: Any, lists: bool, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        items = list(value.items())
    elif lists and isinstance(value, list) and value:
        items = list(enumerate(value))
    else:
        return {prefix: value}
    flat = (_flat(child, lists, f"{prefix}.{key}".strip(".")) for key, child in items)
    return {name: leaf for part in flat for name, leaf in part.items()}


def finite(value: Any) -> Any:
    """`value` with None for each number that is not finite, which JSON cannot write."""
    if isinstance(value, Mapping):
        return {key: finite(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def text_digest(words: str) -> str:
    """SHA-256 of a text in UTF-8, in hex. A file's name may be no UTF-8; Python then has surrogates in
    it, which pass."""
    return hashlib.sha256(words.encode(errors="surrogatepass")).hexdigest()


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for a purpose, independent of all others, such as `derive(42, "dropout", "head",
    epoch, step)`."""
    words = "\x1f".join(f"{type(p).__name__}:{p}" for p in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def text(value: Any) -> bytes:
    """JSON for a file. Not `canonical`: a diverged phase has NaN losses and is kept too."""
    return json.dumps(plain(value), sort_keys=True, indent=1).encode()


def from_text(data: bytes | str) -> Any:
    """The value of a JSON file. Raises ValueError, also for lists in lists in lists without end."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def with_seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """`record` in JSON's types and its seal, for a file that proves itself: the SHA-256 of the `text` of
    all else in it.

    Raises:
        TypeError: as `plain`.

    Example:
        >>> sealed = with_seal({"nodes": ["a"]})
        >>> is_sealed(sealed), is_sealed({**sealed, "nodes": []})
        (True, False)
    """
    rest: dict[str, Any] = plain(record)
    return {**rest, "seal": _seal(rest)}


def is_sealed(value: Any) -> bool:
    """Whether a value read from JSON is what `with_seal` made."""
    try:
        return isinstance(value, dict) and value.get("seal") == _seal(value)
    except RecursionError:  # of lists in lists in lists, which nobody seals
        return False


def is_sealed_text(data: bytes, document: Mapping[str, Any]) -> bool:
    """Whether a document is what was sealed. data: the bytes of its file."""
    # A file as `text` makes it is told by its bytes without the line of the seal: making the text anew
    # takes longer than all else that is done with a document. Laid out otherwise, it may still hold it.
    seal = document.get("seal")
    if not isinstance(seal, str):
        return False
    line = f'\n "seal": "{seal}"'.encode(errors="replace")
    before, _, after = data.rpartition(line)
    rest = before + after[1:] if after.startswith(b",") else before.removesuffix(b",") + after
    return hashlib.sha256(rest).hexdigest() == seal or is_sealed(document)


def _seal(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(text({k: v for k, v in document.items() if k != "seal"})).hexdigest()
