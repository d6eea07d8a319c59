from offramp.parts import head
from offramp.phase import CE, Phase, Program
from offramp.strategies.baseline import BackboneStart, backbone_first


def two_stage(exits: int, *, backbone: BackboneStart = "trained") -> Program:
    """The backbone first, then heads on its frozen features (paper section 4.4, Algorithm 4).

    1. train the backbone and the final exit, without early exits
    2. freeze them; for every early exit n = 1 … N:
       train head n alone on CE(exit n)

    Args:
        exits: K.
        backbone: `kept` leaves step 1 out: the backbone keeps, to the bit, the weights that it came
            with.
    """
    return (
        *backbone_first(exits, backbone),
        *(Phase(f"exit {n}", train=head(n), loss=(CE(n),)) for n in range(1, exits)),
    )
