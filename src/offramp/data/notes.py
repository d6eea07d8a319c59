"""What a person should know of data before anything trains on them, a line each."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from offramp.data_spec import SPLITS
from offramp.units import counted

FEW = 100  # images of a split below which what is measured on it is coarse
LEVEL = 0.001  # of the test of shares of classes, which every data set undergoes

ClassCounts = Mapping[str, Sequence[int]]  # images of each class, by split


def notes(provenance: Mapping[str, Any], kind: str = "image") -> list[str]:
    """Sentences about data that were read: what was left out, skipped, or is there twice, and remarks.
    kind: what an example is called."""
    lines = left_out(provenance.get("group_in_another_split", {}), kind)
    for split, names in provenance.get("skipped", {}).items():
        lines.append(f"{counted(len(names), kind)} of {split} skipped as damaged, {names[0]} first")
    for where, count in provenance.get("duplicates", {}).items():
        split, _, other = where.partition(" in ")
        twin = f"one of {other}" if other else "another of them"
        lines.append(f"{counted(count, kind)} of {split} equal to {twin}, byte for byte")
    return [f"{line}." for line in (*lines, *provenance.get("remarks", ()))]


def left_out(dropped: Mapping[str, Mapping[str, int]], kind: str = "image") -> list[str]:
    """Examples that are in no split. dropped: see `offramp.data.splits.Splits`."""
    return [
        f"{counted(n['images'], kind)} left out of {split}, of {counted(n['groups'], 'group')} that "
        "another split shows too"
        for split, n in dropped.items()
    ]


def duplicates(digests: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many images equal an earlier one, byte for byte; zeros are left out. digests: of each image,
    by split.

    Returns:
        By split, those that equal another of the same (`test`), and one of another (`test in train`).
    """
    counts = {name: len(shas) - len(set(shas)) for name, shas in digests.items()}
    for name, other in itertools.permutations(digests, 2):
        if SPLITS.index(name) > SPLITS.index(other) and digests[name] is not digests[other]:
            seen = set(digests[other])
            counts[f"{name} in {other}"] = sum(sha in seen for sha in digests[name])
    return {name: count for name, count in counts.items() if count}


def torn(
    digests: Mapping[str, Sequence[str]], labels: Mapping[str, Sequence[Hashable]]
) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Equal examples that have unlike labels. digests, labels: of each example, by split.

    Returns:
        How many examples these are, and the split and place of two that are equal; none where none are.
    """
    counts = Counter(itertools.chain.from_iterable(digests.values()))
    places: dict[str, dict[Hashable, tuple[str, int]]] = {}
    for split, shas in digests.items():
        for place, (sha, label) in enumerate(zip(shas, labels[split], strict=True)):
            if counts[sha] > 1:
                places.setdefault(sha, {}).setdefault(label, (split, place))
    unlike = {sha: tuple(where.values())[:2] for sha, where in places.items() if len(where) > 1}
    return sum(counts[sha] for sha in unlike), next(iter(unlike.values()), ())


def remarks(
    counts: ClassCounts,
    classes: Sequence[str],
    sizes: Mapping[str, int] | None = None,
    kind: str = "image",
) -> list[str]:
    """Splits that are small or unlike.

    Args:
        counts: Of each split, in the order of the classes.
        classes: Their names.
        sizes: Images of each split, where they have several labels each: these are no shares of a whole,
            and nothing is said of how they compare.
        kind: What an example is called.
    """
    if sizes is not None:
        return [*_few(sizes, kind), *_unseen(counts, classes, kind)]
    sizes = {name: sum(numbers) for name, numbers in counts.items()}
    return [*_few(sizes, kind), *_unseen(counts, classes, kind), *unlike(counts, classes, kind)]


def _few(sizes: Mapping[str, int], kind: str) -> list[str]:
    small = [f"{size:,} {name}" for name, size in sizes.items() if 0 < size < FEW]
    if not small:
        return []
    follows = []
    if 0 < sizes["train"] < FEW:
        follows.append("a network learns little from so few")
    if (size := sizes["calibration"]) < FEW:
        follows.append(
            f"one of calibration is {100 / size:.3g} points, and no smaller loss of accuracy can be told"
        )
    if (size := min(sizes["validation"], sizes["test"])) < FEW:
        follows.append(
            f"an accuracy on {size:,} is known to ±{98 / math.sqrt(size):.0f} points at worst"
        )
    return [f"few {kind}s ({', '.join(small)}): {'; '.join(follows)}"]


def _unseen(counts: ClassCounts, classes: Sequence[str], kind: str) -> list[str]:
    """Classes that other splits show, and no training image."""
    totals = [sum(numbers) for numbers in zip(*counts.values(), strict=True)]
    rows = zip(classes, counts["train"], totals, strict=True)
    unseen = [f"'{name}'" for name, trained, images in rows if images and not trained]
    if not unseen or not any(counts["train"]):
        return []
    names = ", ".join((*unseen[:3], *(["…"] if len(unseen) > 3 else [])))
    return [f"no training {kind} shows {names}, and other splits do: nothing learns to answer that"]


def unlike(counts: ClassCounts, classes: Sequence[str], kind: str = "image") -> list[str]:
    """Whether shares of classes in calibration and in training differ by more than chance: by Pearson's
    chi-squared test of two samples, at 0.001."""
    table = np.array([counts["train"], counts["calibration"]], dtype=np.float64)
    names = [name for name, n in zip(classes, table.sum(axis=0), strict=True) if n]
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2 or not table.sum(axis=1).all() or chi_squared_p(table) >= LEVEL:
        return []
    train, calibration = table / table.sum(axis=1, keepdims=True)
    most = int(np.abs(train - calibration).argmax())
    return [
        f"calibration has other shares of classes than train: {100 * calibration[most]:.0f} % of it is "
        f"'{names[most]}', of train {100 * train[most]:.0f} %. What is chosen on it holds for its "
        f"shares; calibrating by training shares weighs its {kind}s"
    ]


def chi_squared_p(table: NDArray[np.float64]) -> float:
    """p of the test, written out: importing scipy.stats takes most of a second, in every process."""
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(chdtrc(table.shape[1] - 1, ((table - expected) ** 2 / expected).sum()))
