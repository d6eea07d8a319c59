from dataclasses import replace

from offramp.parts import head, segment
from offramp.phase import Program
from offramp.strategies.joint import JointWeights, joint


def gradient_equilibrium(exits: int, *, exit_weights: JointWeights = "uniform") -> Program:
    """Joint training where each layer gets a mean of its exits' gradients (Li et al., arXiv 1908.06294).

    1. joint training of everything; at exit n of K, the gradient that goes on to the layers below is
       1 / (K - n + 1) of what head n sends, and (K - n) / (K - n + 1) of what the deeper layers send

    A layer's gradient then does not grow with the number of exits above it. Heads train as usual.

    Args:
        exits: K.
        exit_weights: As the `joint_weights` of joint training; 1 each in its source.
    """
    backward = {}
    for n in range(1, exits):
        above = exits - n  # exits whose gradients come from deeper layers
        backward[head(n)] = 1 / (above + 1)
        backward[segment(n + 1)] = above / (above + 1)
    (phase,) = joint(exits, joint_weights=exit_weights)
    return (replace(phase, name="equilibrium", backward=backward),)
