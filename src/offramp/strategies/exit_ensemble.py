from offramp.parts import heads, segments
from offramp.phase import CE, LIVE, MSE, Features, Phase, Program


def exit_ensemble(exits: int, *, weight: float = 1.0, features: float = 1.0) -> Program:
    """All exits together, each pulled towards the mean of all (Lee and Lee, arXiv 2104.00299).

    1. train every layer and every head on
       L = Σ CE(exit n) + w · Σ MSE(z_n, mean of z_1 … z_K) + v · Σ MSE(g_n, mean of g_1 … g_K),
       z the logits, g_n = A_n f_n the adapted features of exit n, g_K = f_K; no gradient to the means

    A_n is a linear layer that training alone has.

    Args:
        exits: K.
        weight: w.
        features: v.
    """
    every = tuple(range(1, exits + 1))
    answers = tuple(MSE(n, every, weight) for n in every)
    hints = tuple(Features(n, every, features) for n in every)
    return (
        Phase(
            "together",
            train=segments(1, exits) | heads(1, exits),
            loss=(*(CE(n) for n in every), *answers, *hints),
            teacher=LIVE,
        ),
    )
