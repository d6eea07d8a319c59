"""Which samples are held out, and which make a smaller data set: functions of seed and labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from offramp.errors import OfframpError
from offramp.seeding import derive

HELD_OUT_SHARE = 20  # one in twenty: 5 %
HELD_OUT_LEAST = 20  # images a class
HELD_OUT_MOST = 4  # never more than one in four


def subset(labels: Tensor, n: int, seed: int, purpose: str) -> Tensor:
    """`n` rows, ascending, that keep the proportions of the classes (largest remainder; the lower
    class number wins a tie). labels: [N] int64. Returns [n] int64.

    Raises OfframpError unless 1 ≤ n ≤ N.
    """
    if not 1 <= n <= len(labels):
        raise OfframpError(f"cannot take {n} images of {len(labels)}; ask for 1 to {len(labels)}")
    if n == len(labels):
        return torch.arange(n)
    groups = _shuffled_by_class(labels, seed, purpose)
    counts = [len(rows) * n // len(labels) for rows in groups]
    rest = [len(rows) * n % len(labels) for rows in groups]
    for i in sorted(range(len(groups)), key=lambda i: -rest[i])[: n - sum(counts)]:
        counts[i] += 1
    return torch.cat([rows[:k] for rows, k in zip(groups, counts, strict=True)]).sort().values


def hold_out(labels: Tensor, names: Sequence[str], seed: int) -> dict[str, Tensor]:
    """Rows of each held-out split in `names`, and of `train`, what is left; each ascending.

    Every held-out split takes 5 % of each class, at least 20 images of it but never more than a
    quarter of it. A split's rows are a function of its name, the seed and the labels, whichever
    other splits are held out beside it. labels: [N] int64.

    Raises OfframpError when the classes are too small to hold anything out.
    """
    places = ("validation", "calibration", "test")
    taken: dict[str, list[Tensor]] = {name: [] for name in (*places, "train")}
    for rows in _shuffled_by_class(labels, seed, "hold-out"):
        k = min(max(len(rows) // HELD_OUT_SHARE, HELD_OUT_LEAST), len(rows) // HELD_OUT_MOST)
        for i, name in enumerate(places):
            taken[name if name in names else "train"].append(rows[i * k : (i + 1) * k])
        taken["train"].append(rows[len(places) * k :])
    split = {name: torch.cat(taken[name]).sort().values for name in (*names, "train")}
    for name in names:
        if not len(split[name]):
            raise OfframpError(
                f"too few training images to hold out a {name} split: no class has "
                f"{HELD_OUT_MOST}; give more training images, or a {name} split"
            )
    return split


def _shuffled_by_class(labels: Tensor, seed: int, purpose: str) -> list[Tensor]:
    """The rows of each class that occurs, by ascending class, each in a random order of its own."""
    classes, counts = torch.unique(labels, return_counts=True)
    groups = torch.split(labels.argsort(stable=True), counts.tolist())
    shuffled = []
    for label, rows in zip(classes.tolist(), groups, strict=True):
        generator = torch.Generator().manual_seed(derive(seed, purpose, label))
        shuffled.append(rows[torch.randperm(len(rows), generator=generator)])
    return shuffled
