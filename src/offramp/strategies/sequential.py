from offramp.parts import head, heads, segments
from offramp.phase import CE, KD, Phase, Program
from offramp.strategies.baseline import baseline


def sequential(
    exits: int,
    *,
    keep: float = 1.0,
    tau: float = 2.0,
    fine_tune_scale: float = 1.0,
) -> Program:
    """Exits added one after another, without forgetting earlier ones (arXiv 2605.05358).

    1. train the backbone with the final exit
    2. for n = 1 … N: add exit n; train all layers and the heads added so far on
       L = CE(exit n) + λ · Σ τ² KL(before ∥ now) over the exits that were there before,
       `before` being the network as the last step left it (learning without forgetting)

    Args:
        exits: K.
        keep: λ.
        tau: τ.
        fine_tune_scale: Times the learning rate in step 2. A new head starts untrained, and with a small
            rate it stays so.
    """
    program = baseline(exits)
    for n in range(1, exits):
        earlier = (*range(1, n), exits)
        added = Phase(
            f"exit {n}",
            train=segments(1, exits) | heads(1, n) | head(exits),
            loss=(CE(n), *(KD(k, k, tau, weight=keep) for k in earlier)),
            teacher=program[-1].name,
            recipe={"learning_rate_scale": fine_tune_scale},
        )
        program = (*program, added)
    return program
