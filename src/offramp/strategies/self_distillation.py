from __future__ import annotations

from offramp.parts import heads, segments
from offramp.phase import CE, KD, LIVE, Phase, Program


def self_distillation(exits: int, *, share: float = 0.3, tau: float = 3.0) -> Program:
    """The final exit teaches the early ones while all train together (Zhang et al., arXiv 1905.08094).

    1. train every layer and every head; the final exit on its cross-entropy, each early one on
       L = (1 - α) · CE(exit n) + α · τ² KL(final exit ∥ exit n), the final exit's answers as they are

    The source adds an L2 loss between features, through layers that only training has; here there is
    none. share, tau: α and τ.
    """
    early = range(1, exits)
    taught = tuple(KD(n, exits, tau, weight=share) for n in early)
    return (
        Phase(
            "together",
            train=segments(1, exits) | heads(1, exits),
            loss=(*(CE(n, weight=1 - share) for n in early), CE(exits), *taught),
            teacher=LIVE,
        ),
    )
