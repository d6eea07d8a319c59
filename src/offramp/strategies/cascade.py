from offramp.parts import LEARNED, heads
from offramp.phase import CE, Phase, Program
from offramp.strategies.baseline import BackboneStart, backbone_first


def cascade(exits: int, *, backbone: BackboneStart = "trained") -> Program:
    """Heads on a frozen backbone, each reading the answer before (Zero Time Waste, arXiv 2106.05409).

    1. train the backbone with the final exit
    2. freeze it; train all early heads together on Σ CE(z_n), where exit n answers by
       z_n = f_n + U_n · z_(n-1), f_n the logits of head n, z_(n-1) without a gradient,
       U_n a matrix [classes, classes] that begins at zero and trains with head n; z_1 = f_1

    A head whose last layer reads its features and z_(n-1) side by side computes the same. It answers in
    the same way in use, so the heads before an early exit always run. The final exit answers alone. The
    second half of the source, exits that answer by the geometric mean of those so far, is a matter of
    the policy (`offramp calibrate --score ensemble`).

    Args:
        exits: K.
        backbone: `kept` leaves step 1 out: it keeps the weights that it came with.
    """
    first = backbone_first(exits, backbone)
    if exits == 1:
        return first
    loss = tuple(CE(n) for n in range(1, exits))
    return (*first, Phase("heads", train=heads(1, exits - 1), loss=loss, carry=LEARNED))
