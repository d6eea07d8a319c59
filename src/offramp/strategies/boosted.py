from dataclasses import replace

from offramp.phase import Program
from offramp.strategies.gradient_equilibrium import gradient_equilibrium


def boosted(exits: int, *, carry: float = 0.5) -> Program:
    """Each exit learns what the exits before it have not learned (Yu et al., arXiv 2211.16726).

    1. joint training with gradient equilibrium, where exit n answers by
       z_n = f_n + c · z_(n-1), f_n the logits of head n, z_(n-1) without a gradient
       L = Σ CE(z_n), over the early exits and the final one

    It answers in the same way in use, so the heads before an exit always run.

    Args:
        exits: K.
        carry: c.
    """
    (phase,) = gradient_equilibrium(exits)
    return (replace(phase, name="boosted", carry=carry),)
