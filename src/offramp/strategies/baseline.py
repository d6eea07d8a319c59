from __future__ import annotations

from offramp.parts import backbone
from offramp.phase import CE, Phase, Program


def baseline(exits: int) -> Program:
    """The plain network, without early exits (paper section 6.4).

    1. train every layer and the final exit on the final exit's cross-entropy
    """
    return (Phase("backbone", train=backbone(exits), loss=(CE(exits),)),)
