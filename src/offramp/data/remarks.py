"""What to know of splits before anything trains on them: few images, and unlike shares of classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

FEW = 100  # images of a split below which what is measured on it is coarse
LEVEL = 0.001  # of the test whether shares of classes are alike: they are looked at for every data set

Counts = Mapping[str, Sequence[int]]  # images of each class, by split


def remarks(counts: Counts, classes: Sequence[str]) -> list[str]:
    """A line for each thing. counts: of each split, in the order of the classes."""
    return [*_few(counts), *_unseen(counts, classes), *unlike(counts, classes)]


def _unseen(counts: Counts, classes: Sequence[str]) -> list[str]:
    """A line where other splits show classes that no training image shows."""
    shown = [sum(numbers) for numbers in zip(*counts.values(), strict=True)]
    rows = zip(classes, counts["train"], shown, strict=True)
    lost = [f"'{name}'" for name, trained, images in rows if images and not trained]
    names = ", ".join((*lost[:3], *(["…"] if len(lost) > 3 else [])))
    said = f"no training image shows {names}, and other splits do: nothing learns to answer that"
    return [said] if lost else []


def unlike(counts: Counts, classes: Sequence[str]) -> list[str]:
    """A line where the shares of classes in calibration and in training differ by more than chance: by
    Pearson's chi-squared test of two samples, at 0.001."""
    table = np.array([counts["train"], counts["calibration"]], dtype=np.float64)
    names = [name for name, n in zip(classes, table.sum(axis=0), strict=True) if n]
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2 or alike(table) >= LEVEL:
        return []
    train, calibration = table / table.sum(axis=1, keepdims=True)
    most = int(np.abs(train - calibration).argmax())
    return [
        f"calibration has other shares of classes than train: {100 * calibration[most]:.0f} % of it is "
        f"'{names[most]}', of train {100 * train[most]:.0f} %. What is chosen on it holds for its "
        "shares; calibrating by training shares weighs its images"
    ]


def alike(table: NDArray[np.float64]) -> float:
    """p of the test, written out: importing scipy.stats takes most of a second, in every process."""
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(chdtrc(table.shape[1] - 1, ((table - expected) ** 2 / expected).sum()))


def _few(counts: Counts) -> list[str]:
    sizes = {name: sum(found) for name, found in counts.items()}
    small = [f"{size:,} {name}" for name, size in sizes.items() if size < FEW]
    if not small:
        return []
    follows = []
    if sizes["train"] < FEW:
        follows.append("a network learns little from so few")
    if (size := sizes["calibration"]) < FEW:
        follows.append(
            f"one of calibration is {100 / size:.2g} points, and no smaller loss of accuracy can be told"
        )
    if (size := min(sizes["validation"], sizes["test"])) < FEW:
        follows.append(
            f"an accuracy on {size:,} is known to ±{98 / math.sqrt(size):.0f} points at worst"
        )
    return [f"few images ({', '.join(small)}): {'; '.join(follows)}"]
