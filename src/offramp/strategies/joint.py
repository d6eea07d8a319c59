from typing import Literal, assert_never

from offramp.errors import OfframpError
from offramp.parts import heads, segments
from offramp.phase import CE, Phase, Program

JointWeights = Literal["linear", "eq3", "mean", "uniform"] | tuple[float, ...]


def joint(exits: int, *, joint_weights: JointWeights = "linear") -> Program:
    """All exits and the whole backbone together (paper section 4.1, Algorithm 1).

    1. from the initial weights, repeat for every minibatch:
       run the network once, with a prediction at every exit n
       L = Σ W_n · CE(exit n), over the early exits and the final one
       update every layer and every head by L

    Args:
        exits: K.
        joint_weights: Of the exits, see `loss_weights`.
    """
    weights = loss_weights(joint_weights, exits)
    return (
        Phase(
            "joint",
            train=segments(1, exits) | heads(1, exits),
            loss=tuple(CE(n, weight=w) for n, w in enumerate(weights, start=1)),
        ),
    )


def loss_weights(scheme: JointWeights, exits: int) -> tuple[float, ...]:
    """W_1 … W_K for K = `exits`.

    Weights that add up to more than 1 raise the effective learning rate of the shared layers. That is
    the paper's way.

    Args:
        scheme: `linear`: from 0.3 at the first exit to 1.0 at the final one (paper section 5.4).
            `eq3`: n / (1 + … + K), the paper's equation 3 with c = 1; they add up to 1. `mean`: all 1/K.
            `uniform`: all 1. A tuple: those, one an exit.
        exits: K.

    Raises:
        OfframpError: For a tuple of another length.
    """
    numbers = range(1, exits + 1)
    match scheme:
        case "linear":
            return tuple(0.3 + 0.7 * ((n - 1) / (exits - 1)) if exits > 1 else 1.0 for n in numbers)
        case "eq3":
            return tuple(n / sum(numbers) for n in numbers)
        case "mean":
            return (1 / exits,) * exits
        case "uniform":
            return (1.0,) * exits
        case tuple():
            if len(scheme) != exits:
                raise OfframpError(
                    f"joint_weights has {len(scheme)} entries for {exits} exits (the final one "
                    f"included); give {exits}"
                )
            return tuple(float(w) for w in scheme)
        case _:
            assert_never(scheme)
