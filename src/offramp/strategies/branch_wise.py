from offramp.parts import head, segment
from offramp.phase import CE, Phase, Program


def branch_wise(exits: int) -> Program:
    """From the input to the output, one stage at a time (paper section 4.3, Algorithm 3).

    1. for n = 1 … K:
       freeze everything trained so far, L_1 … L_(n-1)
       train the layers between exit n - 1 and exit n, and head n, on CE(exit n)
       (the last stage trains the last layers and the final classifier)

    Args:
        exits: K.
    """
    return tuple(
        Phase(f"branch {n}", train=segment(n) | head(n), loss=(CE(n),)) for n in range(1, exits + 1)
    )
