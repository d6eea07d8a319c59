"""What it costs to leave at each exit, given the exits whose heads are run at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offramp.parts import Carry, path


@dataclass(frozen=True)
class Costs:
    """MACs for one image of the parts of a network with K exits.

    Attributes:
        segments: [K], those between exits.
        heads: [K]; head K is the classifier.
        owners: [K], the trunk that each exit runs; all 0 when they share one.
        exits: The numbers of the exits that the trial has, ascending; the last is its final one.
        carry: See `Policy`.

    Example:
        >>> from offramp import Costs
        >>> Costs(segments=(400, 600), heads=(10, 20), owners=(0, 0), exits=(1, 2)).full
        1020
    """

    segments: tuple[int, ...]
    heads: tuple[int, ...]
    owners: tuple[int, ...]
    exits: tuple[int, ...]
    carry: Carry = 0.0

    def leaving(self, active: Sequence[int]) -> tuple[int, ...]:
        """MACs of an image that leaves at each exit of `active`.

        It has run the heads of the active exits up to there, and every segment below them; a head that
        is not active costs nothing, nor does a trunk that only such a head reads. An early exit that has
        learned what to add of the answer before needs all heads before it.

        Args:
            active: Indices into `exits`, ascending.
        """
        passed: set[tuple[int, str, int]] = set()
        spent = []
        for index in active:
            reads_before = isinstance(self.carry, str) and index < len(self.exits) - 1
            for exit in self.exits[0 if reads_before else index : index + 1]:
                trunk = self.owners[exit - 1]
                passed |= {(trunk, part.kind, part.index) for part in path(exit)}
            spent.append(sum(self._of(kind, i) for _, kind, i in passed))
        return tuple(spent)

    @property
    def full(self) -> int:
        """MACs of the final exit alone: the full network, without early heads."""
        return self.leaving([len(self.exits) - 1])[0]

    def _of(self, kind: str, index: int) -> int:
        return (self.segments if kind == "segment" else self.heads)[index - 1]
