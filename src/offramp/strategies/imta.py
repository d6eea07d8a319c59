from __future__ import annotations

from offramp.parts import HIDDEN, heads
from offramp.phase import CE, KD, LIVE, Phase, Program
from offramp.strategies.gradient_equilibrium import gradient_equilibrium


def imta(exits: int, *, gamma: float = 0.1, tau: float = 1.0, collaboration: bool = True) -> Program:
    """Gradient equilibrium, then heads that learn from the last one (Li et al., arXiv 1908.06294).

    1. joint training with gradient equilibrium
    2. freeze the backbone; all heads go on, the final one on its cross-entropy, each early one on
       L = (1 - γ) · CE(z_n) + γ · τ² KL(final exit ∥ z_n), the final exit's answers as they are;
       exit n answers by z_n = f_n + U_n · ReLU(BN(V_n · z_(n-1))), f_n the logits of head n, z_(n-1)
       without a gradient, U_n zero at first; z_1 = f_1 (inline subnetwork collaboration)

    A head whose last layer reads its features and that ReLU side by side is the same. Heads before an
    early exit are always run; the final exit answers alone.
    gamma, tau: γ and τ.  collaboration: whether exits read the answer before; otherwise z_n = f_n.
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
            carry=HIDDEN if collaboration and exits > 2 else 0.0,
        ),
    )
