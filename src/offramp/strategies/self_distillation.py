from offramp.parts import heads, segments
from offramp.phase import CE, KD, LIVE, Features, Phase, Program


def self_distillation(
    exits: int, *, share: float = 0.3, tau: float = 3.0, features: float = 0.03
) -> Program:
    """The final exit teaches the early ones while all train together (Zhang et al., arXiv 1905.08094).

    1. train every layer and every head; the final exit on its cross-entropy, each early one on
       L = (1 - α) · CE(exit n) + α · τ² KL(final exit ∥ exit n) + λ · ‖A_n f_n - f‖²,
       f_n and f the features of exit n and of the final exit, to which neither term sends a gradient

    A_n is a linear layer that training alone has.

    Args:
        exits: K.
        share: α.
        tau: τ.
        features: λ.
    """
    early = range(1, exits)
    taught = tuple(KD(n, exits, tau, weight=share) for n in early)
    hints = tuple(Features(n, exits, weight=features, over="sum") for n in early)
    return (
        Phase(
            "together",
            train=segments(1, exits) | heads(1, exits),
            loss=(*(CE(n, weight=1 - share) for n in early), CE(exits), *taught, *hints),
            teacher=LIVE,
        ),
    )
