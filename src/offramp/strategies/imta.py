from typing import Literal, assert_never

from offramp.parts import HIDDEN, heads
from offramp.phase import CE, KD, LIVE, Phase, Program
from offramp.strategies.gradient_equilibrium import gradient_equilibrium


def imta(
    exits: int,
    *,
    gamma: float = 0.1,
    tau: float = 1.0,
    collaboration: bool = True,
    teacher: Literal["live", "before"] = "live",
) -> Program:
    """Gradient equilibrium, then heads that learn from the last one (Li et al., arXiv 1908.06294).

    1. joint training with gradient equilibrium
    2. freeze the backbone; all heads go on, the final one on its cross-entropy, each early one on
       L = (1 - γ) · CE(z_n) + γ · τ² KL(final exit ∥ z_n), without a gradient to the final exit;
       exit n answers by z_n = f_n + U_n · ReLU(BN(V_n · z_(n-1))), f_n the logits of head n, z_(n-1)
       without a gradient, U_n zero at first; z_1 = f_1 (inline subnetwork collaboration)

    A head whose last layer reads its features and that ReLU side by side computes the same. The heads
    before an early exit always run; the final exit answers alone.

    Args:
        exits: K.
        gamma: γ.
        tau: τ.
        collaboration: Whether exits read the answer before; otherwise z_n = f_n.
        teacher: The final exit as it is in the same step (`live`), or as step 1 left it (`before`).
    """
    first = gradient_equilibrium(exits)
    match teacher:
        case "live":
            teaching = LIVE
        case "before":
            teaching = first[-1].name
        case _:
            assert_never(teacher)
    early = range(1, exits)
    taught = tuple(KD(n, exits, tau, weight=gamma) for n in early)
    return (
        *first,
        Phase(
            "heads",
            train=heads(1, exits),
            loss=(*(CE(n, weight=1 - gamma) for n in early), CE(exits), *taught),
            teacher=teaching,
            carry=HIDDEN if collaboration and exits > 2 else 0.0,
        ),
    )
