from __future__ import annotations

from typing import Literal

from offramp.parts import Parts, head, segment
from offramp.phase import CE, Phase, Program
from offramp.strategies.joint import joint
from offramp.strategies.weights import JointWeights


def joint_branch(
    exits: int,
    *,
    joint_weights: JointWeights = "linear",
    scope: Literal["head", "segment"] = "head",
    refine_final: bool = False,
    fine_tune_scale: float = 0.1,
) -> Program:
    """Joint training, then a refinement of one branch after another (paper section 4.6, Algorithm 6).

    1. joint training of everything
    2. for n = 1 … N, from the weights that joint training left:
       freeze the backbone; go on training head n alone on CE(exit n)

    scope `segment`: the refinement is Algorithm 3 in full, layers included, the final stage too.
    refine_final: the final classifier is refined as well; by default it stays as joint training left it.
    fine_tune_scale: times the learning rate in step 2, since these weights are trained already.
    """

    def refined(n: int) -> Parts:
        return segment(n) | head(n) if scope == "segment" else head(n)

    last = exits if scope == "segment" or refine_final else exits - 1
    return (
        *joint(exits, joint_weights=joint_weights),
        *(
            Phase(
                f"branch {n}",
                train=refined(n),
                loss=(CE(n),),
                recipe=(("learning_rate_scale", fine_tune_scale),),
            )
            for n in range(1, last + 1)
        ),
    )
