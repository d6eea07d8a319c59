from dataclasses import replace

from offramp.phase import Program
from offramp.strategies.baseline import baseline
from offramp.strategies.joint import JointWeights, joint


def mixed(exits: int, *, exit_weights: JointWeights = "mean", fine_tune_scale: float = 1.0) -> Program:
    """The backbone first, then everything together (Kubaty et al., arXiv 2407.14320).

    1. train the backbone and the final exit, without early exits
    2. from its weights, train every layer and every head on
       L = Σ W_n · CE(exit n), over the early exits and the final one

    Args:
        exits: K.
        exit_weights: `mean`, each exit the same, 1/K, as in its source; or as in joint training.
        fine_tune_scale: Times the learning rate in step 2, since the layers are trained already.
    """
    (together,) = joint(exits, joint_weights=exit_weights)
    recipe = {"learning_rate_scale": fine_tune_scale}
    return (*baseline(exits), replace(together, name="together", recipe=recipe))
