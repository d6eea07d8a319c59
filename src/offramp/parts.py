"""The parts of an early-exit network, by name.

A network with K exits is `segment 1 … segment K` with `head 1 … head K`; exit k runs segments 1 to k
and head k. Head K is the backbone's own classifier, the paper's final exit (FE).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from offramp.errors import OfframpError


@dataclass(frozen=True, order=True)
class Part:
    """One trainable piece. `index` counts from 1 at the input."""

    kind: Literal["segment", "head"]
    index: int

    def __str__(self) -> str:
        return f"{self.kind} {self.index}"


Parts = frozenset[Part]
MOST = 100_000  # of exits, as many as any network has layers

Chain = tuple[tuple[str, ...], ...]
"""Of a module that cannot be traced: the submodules of each segment, and of the classifier."""

LEARNED: Final = "learned"
HIDDEN: Final = "hidden"
Carry = float | Literal["learned", "hidden"]
"""What an exit adds of the previous exit's answer: a share of it, 0 for none; or what its head has
learned to make of it, a matrix times it ("learned"), the same through a hidden layer ("hidden"). Only
early exits after the first learn that; the final exit then adds nothing."""

Taps = tuple[str, ...] | Chain | int | None
"""Where early exits read: names of places or shares of the MACs, a chain, how many, or no wish."""


def segment(index: int) -> Parts:
    """The layers between exit `index - 1` and exit `index`; parts add up with `|`.

    Raises:
        OfframpError: For an index below 1.

    >>> from offramp import head, segment
    >>> sorted(map(str, segment(1) | head(1)))
    ['head 1', 'segment 1']
    """
    return _parts("segment", index, index)


def head(index: int) -> Parts:
    """The classifier of exit `index`.

    Raises:
        OfframpError: For an index below 1.

    >>> from offramp import head
    >>> list(map(str, head(2)))
    ['head 2']
    """
    return _parts("head", index, index)


def segments(first: int, last: int) -> Parts:
    """Segments `first` to `last`, both included; none when `last < first`.

    Raises:
        OfframpError: For a `first` below 1.

    >>> from offramp import segments
    >>> sorted(map(str, segments(1, 3)))
    ['segment 1', 'segment 2', 'segment 3']
    """
    return _parts("segment", first, last)


def heads(first: int, last: int) -> Parts:
    """Heads `first` to `last`, both included; none when `last < first`.

    Raises:
        OfframpError: For a `first` below 1.

    >>> from offramp import heads
    >>> sorted(map(str, heads(1, 2)))
    ['head 1', 'head 2']
    """
    return _parts("head", first, last)


def backbone(exits: int) -> Parts:
    """The network without its early exits: every segment and the final head, number `exits`.

    Raises:
        OfframpError: For fewer exits than 1.

    >>> from offramp import backbone
    >>> sorted(map(str, backbone(2)))
    ['head 2', 'segment 1', 'segment 2']
    """
    return segments(1, exits) | head(exits)


def _parts(kind: Literal["segment", "head"], first: int, last: int) -> Parts:
    for index in (first, last):
        if not isinstance(index, int) or index > MOST:
            raise OfframpError(f"there is no {kind} {index!r}; exits count from 1")
    if first < 1:
        raise OfframpError(f"there is no {kind} {first!r}; exits count from 1")
    return frozenset(Part(kind, i) for i in range(first, last + 1))


@cache
def path(exit: int) -> tuple[Part, ...]:
    """The parts that exit `exit` runs, in order."""
    return (*(Part("segment", i) for i in range(1, exit + 1)), Part("head", exit))
