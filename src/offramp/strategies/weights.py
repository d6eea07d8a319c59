"""Loss weights of joint training."""

from __future__ import annotations

from typing import Literal

from offramp.errors import OfframpError

JointWeights = Literal["linear", "eq3", "mean", "uniform"] | tuple[float, ...]


def joint_weights(scheme: JointWeights, exits: int) -> tuple[float, ...]:
    """W_1 … W_K for K = `exits`.

    linear: from 0.3 at the first exit to 1.0 at the final one (paper section 5.4).
    eq3: n / (1 + … + K), the paper's equation 3 with c = 1; they add up to 1.
    mean: all 1/K.  uniform: all 1.  A tuple: those, one an exit.

    Weights that add up to more than 1 raise the effective learning rate of the shared layers. That is
    the paper's way.

    Raises OfframpError for a tuple of another length.
    """
    numbers = range(1, exits + 1)
    if scheme == "linear":
        return tuple(0.3 + 0.7 * ((n - 1) / (exits - 1)) if exits > 1 else 1.0 for n in numbers)
    if scheme == "eq3":
        return tuple(n / sum(numbers) for n in numbers)
    if scheme == "mean":
        return (1 / exits,) * exits
    if scheme == "uniform":
        return (1.0,) * exits
    if len(scheme) != exits:
        raise OfframpError(
            f"joint_weights has {len(scheme)} entries for {exits} exits (the final one included); "
            f"give {exits}"
        )
    return tuple(float(w) for w in scheme)
