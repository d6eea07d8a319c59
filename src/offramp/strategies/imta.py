from __future__ import annotations

from offramp.parts import heads
from offramp.phase import CE, KD, LIVE, Phase, Program
from offramp.strategies.gradient_equilibrium import gradient_equilibrium


def imta(exits: int, *, gamma: float = 0.1, tau: float = 1.0) -> Program:
    """Gradient equilibrium, then heads that learn from the last one (Li et al., arXiv 1908.06294).

    1. joint training with gradient equilibrium
    2. freeze the backbone; all heads go on, the final one on its cross-entropy, each early one on
       L = (1 - γ) · CE(exit n) + γ · τ² KL(final exit ∥ exit n), the final exit's answers as they are

    The source's heads also read features of the head before (inline subnetwork collaboration); here
    they do not. gamma, tau: γ and τ.
    """
    early = range(1, exits)
    taught = tuple(KD(n, exits, tau, weight=gamma) for n in early)
    return (
        *gradient_equilibrium(exits),
        Phase(
            "heads",
            train=heads(1, exits),
            loss=(*(CE(n, weight=1 - gamma) for n in early), CE(exits), *taught),
            teacher=LIVE,
        ),
    )
