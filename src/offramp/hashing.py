"""Content hashes: one unambiguous text for a value, and its SHA-256."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from pathlib import Path
from typing import Any

_LEAVES = (str, int, float, bool, type(None))


def plain(value: Any) -> Any:
    """`value` in the types of JSON. Dataclasses carry their type's name, so that two kinds of thing
    with equal fields never hash alike; sets are sorted.

    Raises TypeError for anything whose text would not be stable (an object's address, a callable).
    """
    if type(value) in _LEAVES:  # most of what a study hashes; asked first, since it is asked so often
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(v) for v in value), key=canonical)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"cannot hash a {type(value).__name__}: {value!r}")


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, exact floats (`repr`), no NaN."""
    return json.dumps(
        plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
