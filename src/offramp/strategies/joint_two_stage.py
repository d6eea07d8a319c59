from offramp.parts import head
from offramp.phase import CE, Init, Phase, Program
from offramp.strategies.joint import JointWeights, joint


def joint_two_stage(
    exits: int, *, joint_weights: JointWeights = "linear", refine_final: bool = False
) -> Program:
    """Joint training, then new heads on the frozen backbone (paper section 5.4, hybrid 2).

    1. joint training of everything
    2. freeze the backbone; for every early exit n = 1 … N:
       draw head n anew and train it alone on CE(exit n)

    Args:
        exits: K.
        joint_weights: As in joint training.
        refine_final: The final classifier is drawn and trained anew as well; by default it stays as
            joint training left it.
    """
    last = exits if refine_final else exits - 1
    return (
        *joint(exits, joint_weights=joint_weights),
        *(
            Phase(f"exit {n}", train=head(n), loss=(CE(n),), init={head(n): Init.FRESH})
            for n in range(1, last + 1)
        ),
    )
