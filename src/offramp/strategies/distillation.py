from typing import Literal, assert_never

from offramp.parts import head, heads, segments
from offramp.phase import BEFORE, CE, KD, Loss, Phase, Program
from offramp.strategies.baseline import BackboneStart, backbone_first


def distillation(
    exits: int,
    *,
    temperature: float = 3.0,
    alpha: float = 0.1,
    students: Literal["heads", "independent", "shared"] = "heads",
    backbone: BackboneStart = "trained",
) -> Program:
    """The trained backbone teaches its early exits (paper section 4.5, Algorithm 5, eqs. 4 and 5).

    1. train the teacher: the backbone with the final exit
    2. freeze it; for every early exit n = 1 … N, with the teacher's logits on the same images:
       L = α · CE(exit n) + (1 - α) · τ² KL(teacher ∥ exit n), both softened by τ
       train the student on L

    Args:
        exits: K.
        temperature: τ.
        alpha: α.
        students: What a student is. `heads`: head n on the teacher's own frozen layers (the default);
            `independent`: head n and a copy of its own of the layers below; `shared`: the whole network
            goes on training, all students at once and the final exit on CE, taught by a frozen copy of
            the teacher.
        backbone: `kept` leaves step 1 out: the teacher is the backbone with the weights that it came
            with.
    """
    teacher = backbone_first(exits, backbone)
    name = teacher[-1].name if teacher else BEFORE
    early = range(1, exits)

    def loss(n: int) -> Loss:
        return CE(n, weight=alpha), KD(n, exits, temperature, weight=1 - alpha)

    match students:
        case "heads":
            taught = [Phase(f"student {n}", head(n), loss(n), teacher=name) for n in early]
        case "independent":
            taught = [
                Phase(f"student {n}", segments(1, n) | head(n), loss(n), trunk=n, teacher=name)
                for n in early
            ]
        case "shared":
            terms = tuple(term for n in early for term in loss(n))
            everything = segments(1, exits) | heads(1, exits)
            taught = [Phase("students", everything, (*terms, CE(exits)), teacher=name)]
        case _:
            assert_never(students)
    return (*teacher, *taught)
