from offramp.parts import heads
from offramp.phase import CE, Gated, Gates, Phase, Program
from offramp.strategies.baseline import BackboneStart, backbone_first


def gated(exits: int, *, cost: float = 0.15, backbone: BackboneStart = "trained") -> Program:
    """Heads on a frozen backbone, and gates that learn when to leave (JEI-DNN, arXiv 2310.09163).

    1. train the backbone with the final exit
    2. freeze it; train all early heads together on CE(exit n)
    3. train heads and gates together, without gradients between them:
       heads on CE(exit n), where image i counts at exit n by the probability that it leaves there
       gates on whether the exit of least CE + cost * (its share of MACs) is theirs or an earlier one

    Use it with a policy that leaves by these gates (`offramp calibrate --score gate`).

    Args:
        exits: K.
        cost: Of running the whole network, in units of cross-entropy.
        backbone: `kept` leaves step 1 out: it keeps the weights that it came with.
    """
    first = backbone_first(exits, backbone)
    if exits == 1:
        return first
    early = heads(1, exits - 1)
    loss = tuple(CE(n) for n in range(1, exits))
    gates = Gates(tuple(range(1, exits + 1)), cost)
    return (
        *first,
        Phase("heads", train=early, loss=loss),
        Phase("heads and gates", train=early, loss=(*loss, gates), sample_weights=Gated()),
    )
