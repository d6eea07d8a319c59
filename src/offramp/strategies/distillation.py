from __future__ import annotations

from typing import Literal

from offramp.parts import Parts, head, heads, segments
from offramp.phase import BEFORE, CE, KD, Loss, Phase, Program
from offramp.strategies.baseline import baseline


def distillation(
    exits: int,
    *,
    temperature: float = 3.0,
    alpha: float = 0.1,
    students: Literal["heads", "independent", "shared"] = "heads",
    backbone: Literal["trained", "kept"] = "trained",
) -> Program:
    """The trained backbone teaches its early exits (paper section 4.5, Algorithm 5, eqs. 4 and 5).

    1. train the teacher: the backbone with the final exit
    2. freeze it; for every early exit n = 1 … N, with the teacher's logits on the same images:
       L = α · CE(exit n) + (1 - α) · τ² KL(teacher ∥ exit n), both softened by τ
       train the student on L

    temperature, alpha: τ and α.
    students: what a student is. `heads`: head n on the teacher's own frozen layers (the default);
    `independent`: head n and a copy of its own of the layers below; `shared`: the whole network goes on
    training, all students at once and the final exit on CE, taught by a frozen copy of the teacher.
    backbone: `kept` leaves step 1 out: the teacher is the backbone with the weights that it came with.
    """

    def loss(n: int) -> Loss:
        return (
            CE(n, weight=alpha),
            KD(n, teacher_exit=exits, temperature=temperature, weight=1 - alpha),
        )

    teacher = baseline(exits) if backbone == "trained" else ()
    name = teacher[-1].name if teacher else BEFORE
    if students == "shared":
        everything = segments(1, exits) | heads(1, exits)
        terms = tuple(term for n in range(1, exits) for term in loss(n))
        return (*teacher, Phase("students", train=everything, loss=(*terms, CE(exits)), teacher=name))

    own = students == "independent"

    def student(n: int) -> Parts:
        return segments(1, n) | head(n) if own else head(n)

    return (
        *teacher,
        *(
            Phase(f"student {n}", train=student(n), loss=loss(n), teacher=name, trunk=n if own else 0)
            for n in range(1, exits)
        ),
    )
