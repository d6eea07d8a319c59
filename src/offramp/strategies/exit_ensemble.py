from __future__ import annotations

from offramp.parts import heads, segments
from offramp.phase import CE, LIVE, MSE, Phase, Program


def exit_ensemble(exits: int, *, weight: float = 1.0) -> Program:
    """All exits together, each drawn to the mean of them all (Lee and Lee, arXiv 2104.00299).

    1. train every layer and every head on
       L = Σ CE(exit n) + w · Σ MSE(z_n, mean of z_1 … z_K), z the logits, the mean as it is

    The source has a like loss of features too; here there is none. weight: w.
    """
    every = range(1, exits + 1)
    return (
        Phase(
            "together",
            train=segments(1, exits) | heads(1, exits),
            loss=(*(CE(n) for n in every), *(MSE(n, tuple(every), weight) for n in every)),
            teacher=LIVE,
        ),
    )
