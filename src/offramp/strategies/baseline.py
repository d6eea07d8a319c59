from typing import Literal, assert_never

from offramp.parts import backbone as backbone_parts
from offramp.phase import CE, Phase, Program

BackboneStart = Literal["trained", "kept"]


def baseline(exits: int) -> Program:
    """The plain network, without early exits (paper section 6.4).

    1. train every layer and the final exit on the final exit's cross-entropy
    """
    return (Phase("backbone", train=backbone_parts(exits), loss=(CE(exits),)),)


def backbone_first(exits: int, backbone: BackboneStart) -> Program:
    """Step 1 of strategies with a frozen backbone: `trained` as the baseline, or left out where it is
    `kept` with the weights that it came with."""
    match backbone:
        case "trained":
            return baseline(exits)
        case "kept":
            return ()
        case _:
            assert_never(backbone)
