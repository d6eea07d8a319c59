from dataclasses import replace
from typing import Literal, assert_never

from offramp.phase import Program, Unsolved
from offramp.strategies.joint import joint


def confidence_gated(
    exits: int, *, gate: Literal["hard", "soft"] = "soft", threshold: float = 0.5
) -> Program:
    """At deeper exits, images count more if earlier exits fail on them (arXiv 2509.17885).

    1. joint training of everything, where image i counts at exit n for
       hard: 1 while no earlier exit is right with a probability of at least the threshold, else 0
       soft: Π (1 - p_m(y_i)) over the exits m before n, p_m(y_i) the probability of the true class

    Args:
        exits: K.
        gate: Hard or soft.
        threshold: Of the hard gate.
    """
    match gate:
        case "hard":
            weights = Unsolved(hard=True, threshold=threshold)
        case "soft":
            weights = Unsolved(hard=False, threshold=threshold)
        case _:
            assert_never(gate)
    (phase,) = joint(exits, joint_weights="uniform")
    return (replace(phase, name="gated", sample_weights=weights),)
