"""A strategy is a program: a tuple of phases, each saying what trains, and nothing of how."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from offramp.errors import OfframpError
from offramp.parts import Parts, path


class Init(Enum):
    """Where a part's weights come from when a phase begins.

    >>> from offramp import CE, Init, Phase, head
    >>> Phase("again", train=head(1), loss=(CE(1),), init=((head(1), Init.FRESH),)).trained
    frozenset({Part(kind='head', index=1)})
    """

    KEEP = "keep"  # what the program has left so far; before any phase, the initial weights
    INITIAL = "initial"  # the initial weights again
    FRESH = "fresh"  # drawn anew, with a seed of its own


@dataclass(frozen=True)
class CE:
    """Cross-entropy at one exit, mean over the batch, times `weight` (paper eq. 2 without its 1/C).

    >>> from offramp import CE
    >>> loss = (CE(1, weight=0.3), CE(2))  # a weighted sum of two exits' losses
    """

    exit: int
    weight: float = 1.0


@dataclass(frozen=True)
class KD:
    """τ²·KL(teacher ∥ student) of logits softened by the temperature τ, mean over the batch, times
    `weight` (paper eq. 4 and Algorithm 5). The teacher is exit `teacher_exit` of the phase's teacher.

    >>> from offramp import CE, KD
    >>> loss = (CE(1, weight=0.1), KD(1, teacher_exit=3, temperature=4.0, weight=0.9))
    """

    exit: int
    teacher_exit: int
    temperature: float = 3.0
    weight: float = 1.0


Loss = tuple[CE | KD, ...]

BEFORE = "before training"
"""The teacher of a phase that learns from the initial weights."""


def describe(loss: Loss) -> str:
    """`0.3·CE(1) + 0.9·KD(4→1, τ=3)`."""
    words = []
    for term in loss:
        weight = "" if term.weight == 1 else f"{term.weight:.4g}·"
        if isinstance(term, CE):
            words.append(f"{weight}CE({term.exit})")
        else:
            words.append(f"{weight}KD({term.teacher_exit}→{term.exit}, τ={term.temperature:g})")
    return " + ".join(words)


@dataclass(frozen=True)
class Phase:
    """One training run.

    name: for people; no result depends on it.
    train: the parts that train; every other part the loss reads is frozen.
    loss: the terms to add up. A term of weight zero reads nothing and is dropped.
    trunk: 0 is the shared trunk; n is exit n's own. A trunk of one's own starts as what the shared
        trunk holds.
    init: parts that do not simply keep their weights.
    teacher: the earlier phase whose resulting weights the KD terms read, frozen; BEFORE for those
        that the network came with.
    recipe: fields of the recipe that this phase overrides, as (field, value) pairs.

    >>> from offramp import CE, Phase, backbone, head
    >>> first = Phase("backbone", train=backbone(3), loss=(CE(3),))
    >>> then = Phase("exit 1", train=head(1), loss=(CE(1),), recipe=(("epochs", 5),))
    >>> then.exits
    (1,)
    """

    name: str
    train: Parts
    loss: Loss
    trunk: int = 0
    init: tuple[tuple[Parts, Init], ...] = ()
    teacher: str | None = None
    recipe: tuple[tuple[str, Any], ...] = ()

    @property
    def terms(self) -> Loss:
        """The terms that count."""
        return tuple(term for term in self.loss if term.weight != 0)

    @property
    def exits(self) -> tuple[int, ...]:
        """The exits that the loss reads, in order."""
        return tuple(sorted({term.exit for term in self.terms}))

    @property
    def trained(self) -> Parts:
        """The parts that train and that the loss reaches."""
        return self.train & frozenset(part for k in self.exits for part in path(k))


Program = tuple[Phase, ...]


def check(program: Program, exits: int) -> None:
    """Refuse a program that cannot run on a network with `exits` exits.

    Raises OfframpError naming the phase and what is wrong with it.
    """
    if not program:
        raise OfframpError("the strategy has no phases; return at least one Phase")
    seen = {BEFORE}
    for phase in program:
        where = f"phase '{phase.name}'"
        if phase.name in seen:
            raise OfframpError(f"{where} appears twice; give each phase a name of its own")
        if not isinstance(phase.loss, tuple) or not all(isinstance(t, CE | KD) for t in phase.loss):
            raise OfframpError(f"{where} has no tuple of CE and KD as loss; write loss=(CE(1),)")
        if not phase.terms:
            raise OfframpError(f"{where} has no loss; give it at least one term of weight above zero")
        if any(term.weight < 0 for term in phase.terms):
            raise OfframpError(f"{where} has a negative loss weight; weights are zero or more")
        distilled = [term for term in phase.terms if isinstance(term, KD)]
        for term in distilled:
            if not 0 < term.temperature < math.inf:
                raise OfframpError(
                    f"{where} has the temperature {term.temperature:g}; give it a number above zero"
                )
        for weight in (term.weight for term in phase.terms):
            if not math.isfinite(weight):
                raise OfframpError(f"{where} has a loss weight of {weight}; give it a finite number")
        numbers = {p.index for p in phase.train} | set(phase.exits)
        numbers |= {term.teacher_exit for term in distilled}
        numbers |= {p.index for parts, _ in phase.init for p in parts}
        if not numbers <= set(range(1, exits + 1)):
            raise OfframpError(f"{where} names an exit outside 1 to {exits}")
        if not phase.trained:
            raise OfframpError(f"{where} trains nothing that its loss reads; train a part on its path")
        if distilled and phase.teacher not in seen:
            raise OfframpError(f"{where} distils from '{phase.teacher}', which is no earlier phase")
        seen.add(phase.name)
