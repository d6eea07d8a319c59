from __future__ import annotations

from offramp.parts import heads, segments
from offramp.phase import CE, KD, Phase, Program
from offramp.strategies.baseline import baseline


def sequential(
    exits: int, *, keep: float = 1.0, tau: float = 2.0, fine_tune_scale: float = 1.0
) -> Program:
    """Exits added one after another, without forgetting those that are there (arXiv 2605.05358).

    1. train the backbone with the final exit
    2. for n = 1 … N: add exit n; train all layers and the heads that are there by now on
       L = CE(exit n) + λ · Σ τ² KL(before ∥ now) over the exits that were there before,
       `before` being the network as the last step left it (learning without forgetting)

    keep, tau: λ and τ. fine_tune_scale: times the learning rate in step 2; a new head starts untrained,
    and a small rate leaves it so.
    """
    program = baseline(exits)
    for n in range(1, exits):
        there = [*range(1, n), exits]
        kept = tuple(KD(k, k, tau, weight=keep) for k in there)
        added = Phase(
            f"exit {n}",
            train=segments(1, exits) | heads(1, n) | heads(exits, exits),
            loss=(CE(n), *kept),
            teacher=program[-1].name,
            recipe=(("learning_rate_scale", fine_tune_scale),),
        )
        program = (*program, added)
    return program
