from dataclasses import replace
from typing import Literal, assert_never

from offramp.phase import Program
from offramp.strategies.baseline import baseline
from offramp.strategies.branch_wise import branch_wise
from offramp.strategies.two_stage import two_stage


def pretrained_branch(
    exits: int, *, scope: Literal["segment", "head"] = "segment", fine_tune_scale: float = 1.0
) -> Program:
    """Branch-wise training that starts from a trained backbone (paper section 5.4, hybrid 3).

    1. train the backbone and the final exit, without early exits
    2. branch-wise training (Algorithm 3) from its weights

    Args:
        exits: K.
        scope: `head`: the backbone stays frozen and only heads train, which is two-stage training.
        fine_tune_scale: Times the learning rate in step 2. The layers are trained already, the heads
            are not: 1 suits the heads, less changes the layers less.
    """
    match scope:
        case "segment":
            branches = branch_wise(exits)
        case "head":
            branches = two_stage(exits, backbone="kept")
        case _:
            assert_never(scope)
    recipe = {"learning_rate_scale": fine_tune_scale}
    return (*baseline(exits), *(replace(phase, recipe=recipe) for phase in branches))
