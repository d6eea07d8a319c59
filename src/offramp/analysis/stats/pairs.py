"""The outcome of comparing two groups."""

from __future__ import annotations

from dataclasses import dataclass

FLOOR = 1e-12  # below it the tail of the studentized range is rounding error


@dataclass(frozen=True)
class Pair:
    """Mean of a minus mean of b, its simultaneous interval, and p adjusted for the number of pairs.

    floored: p is below FLOOR, which stands in its place.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    floored: bool = False


@dataclass(frozen=True)
class UntestedPair:
    """Two groups that could not be compared. difference: None where they share no block."""

    a: str
    b: str
    why: str
    difference: float | None = None


Pairs = tuple[Pair | UntestedPair, ...]
