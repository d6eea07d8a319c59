from offramp.errors import OfframpError
from offramp.parts import head, segments
from offramp.phase import CE, Phase, Program


def separate(exits: int, *, only: int | None = None) -> Program:
    """One network per exit, with nothing in common (paper section 4.2, Algorithm 2).

    1. for every exit n, the final one included:
       M_n = a copy of the initial layers up to L_n, with head n
       train all of M_n on the cross-entropy of its only exit
    2. the result is the cascade of M_1 … M_K: an input that passes n exits pays for n trunks

    Args:
        exits: K.
        only: Train the network of this exit alone, 1 to K.

    Raises:
        OfframpError: There is no such exit.
    """
    if only is not None and not 1 <= only <= exits:
        raise OfframpError(f"there is no exit {only}; name one from 1 to {exits}")
    return tuple(
        Phase(f"exit {n}", trunk=n, train=segments(1, n) | head(n), loss=(CE(n),))
        for n in range(1, exits + 1)
        if only in (None, n)
    )
