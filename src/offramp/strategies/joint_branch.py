from typing import Literal, assert_never

from offramp.parts import head, segment
from offramp.phase import CE, Phase, Program
from offramp.strategies.joint import JointWeights, joint


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

    Args:
        exits: K.
        joint_weights: As in joint training.
        scope: `segment`: the refinement is Algorithm 3 in full, layers included, the final stage too.
        refine_final: The final classifier is refined as well; by default it stays as joint training left
            it.
        fine_tune_scale: Times the learning rate in step 2, since these weights are trained already.
    """
    match scope:
        case "head":
            last = exits if refine_final else exits - 1
            branches = [head(n) for n in range(1, last + 1)]
        case "segment":
            branches = [segment(n) | head(n) for n in range(1, exits + 1)]
        case _:
            assert_never(scope)
    recipe = {"learning_rate_scale": fine_tune_scale}
    return (
        *joint(exits, joint_weights=joint_weights),
        *(
            Phase(f"branch {n}", train=branch, loss=(CE(n),), recipe=recipe)
            for n, branch in enumerate(branches, start=1)
        ),
    )
