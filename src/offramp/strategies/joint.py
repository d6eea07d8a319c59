from __future__ import annotations

from offramp.parts import heads, segments
from offramp.phase import CE, Phase, Program
from offramp.strategies.weights import JointWeights
from offramp.strategies.weights import joint_weights as weigh


def joint(exits: int, *, joint_weights: JointWeights = "linear") -> Program:
    """All exits and the whole backbone together (paper section 4.1, Algorithm 1).

    1. from the initial weights, repeat for every minibatch:
       run the network once, with a prediction at every exit n
       L = Σ W_n · CE(exit n), over the early exits and the final one
       update every layer and every head by L
    """
    weights = weigh(joint_weights, exits)
    return (
        Phase(
            "joint",
            train=segments(1, exits) | heads(1, exits),
            loss=tuple(CE(n, weight=w) for n, w in enumerate(weights, start=1)),
        ),
    )
