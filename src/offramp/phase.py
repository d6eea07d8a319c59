"""A strategy is a program: a tuple of phases, each saying what trains, and nothing of how."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from annotated_types import Ge, Le, Lt

from offramp.errors import OfframpError, check_fields
from offramp.parts import Parts, path

Count = Annotated[int, Ge(1)]
Weight = Annotated[float, Ge(0), Lt(math.inf)]


class Init(Enum):
    """Where a part's weights come from when a phase begins.

    >>> from offramp import CE, Init, Phase, head
    >>> Phase("again", train=head(1), loss=(CE(1),), init=((head(1), Init.FRESH),)).trained
    frozenset({Part(kind='head', index=1)})
    """

    KEEP = "keep"  # what the program has left so far; before any phase, the initial weights
    INITIAL = "initial"  # the initial weights again
    FRESH = "fresh"  # drawn anew, with a seed of its own


Temperature = Annotated[float, Ge(0.01), Le(10_000)]  # its square multiplies a loss of float32


@dataclass(frozen=True)
class CE:
    """Cross-entropy at one exit, mean over the batch, times `weight` (paper eq. 2 without its 1/C).
    Raises OfframpError for an exit below 1, and a weight that is negative or not finite.

    >>> from offramp import CE
    >>> loss = (CE(1, weight=0.3), CE(2))  # a weighted sum of two exits' losses
    """

    exit: Count
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class KD:
    """Distillation: exit `exit` learns the softened answers of `teacher_exit` of the phase's teacher.

    The loss is τ²·KL(teacher ∥ student) of logits softened by the temperature τ, mean over the batch,
    times `weight` (paper eq. 4 and Algorithm 5). Raises OfframpError as `CE` does, and for a
    temperature outside 0.01 to 10,000.

    >>> from offramp import CE, KD
    >>> loss = (CE(1, weight=0.1), KD(1, teacher_exit=3, temperature=4.0, weight=0.9))
    """

    exit: Count
    teacher_exit: Count
    temperature: Temperature = 3.0
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


Loss = tuple[CE | KD, ...]

BEFORE = "before training"
"""As a phase's `teacher`: the weights that the network had before training."""


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
    trunk: 0 is the shared trunk; n is exit n's own. An own trunk starts as a copy of the shared one.
    init: parts that do not simply keep their weights.
    teacher: the earlier phase whose resulting weights the KD terms read, frozen; or `BEFORE`: the
        weights the network had before training.
    recipe: fields of the recipe that this phase overrides: a mapping, or (field, value) pairs.

    Raises OfframpError for an `init` that is not of pairs (parts, Init).

    >>> from offramp import CE, Phase, backbone, head
    >>> first = Phase("backbone", train=backbone(3), loss=(CE(3),))
    >>> then = Phase("exit 1", train=head(1), loss=(CE(1),), recipe=(("epochs", 5),))
    >>> then.exits
    (1,)
    """

    name: str
    train: Parts
    loss: Sequence[CE | KD]
    trunk: int = 0
    init: tuple[tuple[Parts, Init], ...] = ()
    teacher: str | None = None
    recipe: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.loss, list):
            object.__setattr__(self, "loss", tuple(self.loss))
        if isinstance(self.recipe, Mapping):
            object.__setattr__(self, "recipe", tuple(self.recipe.items()))
        pairs = isinstance(self.init, tuple) and all(isinstance(pair, tuple) for pair in self.init)
        if not pairs or not all(len(p) == 2 and isinstance(p[1], Init) for p in self.init):
            raise OfframpError(
                f"phase '{self.name}' does not say which parts start otherwise; "
                "write init=((head(1), Init.FRESH),)"
            )

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
        distilled = [term for term in phase.terms if isinstance(term, KD)]
        numbers = {p.index for p in phase.train} | set(phase.exits)
        numbers |= {term.teacher_exit for term in distilled}
        numbers |= {p.index for parts, _ in phase.init for p in parts}
        if not numbers <= set(range(1, exits + 1)):
            raise OfframpError(f"{where} names an exit outside 1 to {exits}")
        if not phase.trained:
            raise OfframpError(f"{where} trains nothing that its loss reads; train a part on its path")
        if distilled and phase.teacher is None:
            raise OfframpError(f"{where} distils from nobody; give teacher= an earlier phase or BEFORE")
        if distilled and phase.teacher not in seen:
            raise OfframpError(f"{where} distils from '{phase.teacher}', which is no earlier phase")
        seen.add(phase.name)
