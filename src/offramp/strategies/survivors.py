from offramp.parts import heads
from offramp.phase import BEFORE, KD, Phase, Program, Survivors
from offramp.strategies.baseline import BackboneStart, backbone_first


def survivors(
    exits: int,
    *,
    tau: float = 3.0,
    threshold: float = 0.8,
    width: float = 0.05,
    backbone: BackboneStart = "trained",
) -> Program:
    """Heads on a frozen backbone, each for the images that get to it (CalexNet, arXiv 2509.08318).

    1. train the backbone with the final exit
    2. freeze it; train all early heads together on τ² KL(backbone ∥ exit n), where image i counts at
       exit n for Π (1 - σ((confidence_m - threshold) / width)) over the exits m before n

    Use it with thresholds that are solved on the images that get to an exit
    (`offramp calibrate --survivors`).

    Args:
        exits: K.
        tau: τ.
        threshold: Of leaving an exit.
        width: Of leaving an exit.
        backbone: `kept` leaves step 1 out: it keeps the weights that it came with.
    """
    first = backbone_first(exits, backbone)
    if exits == 1:
        return first
    together = Phase(
        "heads",
        train=heads(1, exits - 1),
        loss=tuple(KD(n, exits, tau) for n in range(1, exits)),
        teacher=first[-1].name if first else BEFORE,
        sample_weights=Survivors(threshold, width),
    )
    return (*first, together)
