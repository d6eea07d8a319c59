"""What labels say, which their form tells: one class of each image, numbers [N]; or several labels of an
image, [N, C] of 0 and 1. All that differs between the two asks here, or has this in its name.
"""

from __future__ import annotations

from typing import Any


def several(labels: Any) -> bool:
    """Whether each image has several labels, or none."""
    return bool(labels.ndim == 2)


def alike(answers: Any, truth: Any) -> Any:
    """Whether answers are the same, of several labels all of them.

    Args:
        answers: [N, E] classes, or [N, E, C] labels.
        truth: The like; or of one axis less, what each exit should answer.

    Returns:
        [N, E] bool.

    Example:
        >>> import numpy as np
        >>> alike(np.array([[[1, 0], [1, 1]]]), np.array([[1, 1]])).tolist()
        [[False, True]]
    """
    truth = truth[:, None] if truth.ndim < answers.ndim else truth
    same = answers == truth
    return same.all(axis=-1) if same.ndim == 3 else same
