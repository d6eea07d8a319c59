from __future__ import annotations

from offramp.parts import heads, segments
from offramp.phase import CE, Phase, Program
from offramp.strategies.baseline import baseline
from offramp.strategies.weights import JointWeights
from offramp.strategies.weights import joint_weights as weigh


def mixed(exits: int, *, exit_weights: JointWeights = "mean", fine_tune_scale: float = 1.0) -> Program:
    """The backbone first, then everything together (Kubaty et al., arXiv 2407.14320).

    1. train the backbone and the final exit, without early exits
    2. from its weights, train every layer and every head on
       L = Σ W_n · CE(exit n), over the early exits and the final one

    exit_weights: `mean`, each exit the same, 1/K, as in its source; or as in joint training.
    fine_tune_scale: times the learning rate in step 2, since the layers are trained already.
    """
    return (
        *baseline(exits),
        Phase(
            "together",
            train=segments(1, exits) | heads(1, exits),
            loss=tuple(CE(n, weight=w) for n, w in enumerate(weigh(exit_weights, exits), start=1)),
            recipe=(("learning_rate_scale", fine_tune_scale),),
        ),
    )
