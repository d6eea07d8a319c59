"""Seeds split by purpose: one number for each (seed, purpose), independent of all others."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for a purpose, such as `derive(42, "dropout", "head", epoch, step)`."""
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
