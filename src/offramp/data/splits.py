"""Which image is in which split: subsets and hold-outs, before any pixel is read.

Everything here is a function of the seed, the labels and the groups.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from offramp.data.raw import RawData, RawSplit
from offramp.data_spec import DataSpec
from offramp.errors import OfframpError, nearest
from offramp.seeding import derive

PRECEDENCE = ("test", "validation", "calibration", "train")  # which split keeps a group that two show
HELD_OUT_SHARE = 20  # one in twenty: 5 %
HELD_OUT_LEAST = 20  # images a class
HELD_OUT_MOST = 4  # never more than one in four


@dataclass(frozen=True, eq=False)
class Subset:
    """The images of one split: `rows` [n] int64, ascending, of `source`."""

    source: RawSplit
    rows: Tensor

    @property
    def labels(self) -> Tensor:
        return self.source.labels[self.rows]

    def only(self, kept: Tensor) -> Subset:
        """A part of it. kept: [n] bool."""
        return Subset(self.source, self.rows[kept])


@dataclass(frozen=True, eq=False)
class Splits:
    """Which images make which split.

    parts: the four splits, by name; `validation` may be the same object as `test`.
    dropped: what was left out because its group is in another split: by split, the number of images
    and of groups.
    """

    parts: Mapping[str, Subset]
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def choose(raw: RawData, spec: DataSpec) -> Splits:
    """Subsets and hold-outs. Images of one group are never in two splits: of a group that the source
    shows in several, the test split's stay, and the training split's are dropped and counted.

    Raises OfframpError for counts that cannot be had.
    """
    modes = ("held-out", "test")
    if spec.validation not in modes:
        hint = nearest(spec.validation, modes)
        raise OfframpError(f"data.validation cannot be '{spec.validation}'{hint}")
    if spec.test_images is not None and raw.test is None:
        raise OfframpError(f"data set '{spec.name}' has no test split; leave data.test_images out")
    if spec.held_out_images is not None and spec.held_out_images < 1:
        raise OfframpError(f"data.held_out_images is {spec.held_out_images}; give 1 or more")
    sources = {"validation": raw.validation, "calibration": raw.calibration, "test": raw.test}
    if spec.validation == "test":
        del sources["validation"]
    missing = [name for name, source in sources.items() if source is None]
    given = {name: source for name, source in sources.items() if source is not None}
    whole = {n: Subset(s, torch.arange(len(s.labels))) for n, s in {"train": raw.train, **given}.items()}
    whole, dropped = _apart(whole)
    train = _subset(whole["train"], spec.train_images, spec, "train")
    held, asked = (missing, spec.split_seed, spec.held_out_images), train.source.groups
    if asked is None:
        rows_of = hold_out(train.labels, *held)
    else:
        rows_of = hold_out_groups(train.labels, [asked[row] for row in train.rows.tolist()], *held)
    parts = {name: Subset(raw.train, train.rows[rows]) for name, rows in rows_of.items()}
    parts |= {name: whole[name] for name in given}
    if raw.test is not None:
        parts["test"] = _subset(whole["test"], spec.test_images, spec, "test")
    parts.setdefault("validation", parts["test"])
    return Splits(parts, dropped)


def _apart(parts: Mapping[str, Subset]) -> tuple[dict[str, Subset], dict[str, dict[str, int]]]:
    """The parts without the images whose group a part of higher precedence shows; their numbers."""
    seen: set[str] = set()
    kept, dropped = {}, {}
    for name in PRECEDENCE:
        if name not in parts:
            continue
        part, groups = parts[name], parts[name].source.groups
        if groups is not None:
            fresh = torch.tensor([group not in seen for group in groups])
            if not fresh.all():
                gone = {group for group in groups if group in seen}
                dropped[name] = {"images": int((~fresh).sum()), "groups": len(gone)}
                part = part.only(fresh)
            if not len(part.rows):
                raise OfframpError(
                    f"every group of the {name} split is in another split too; correct the groups"
                )
            seen |= set(groups)
        kept[name] = part
    return kept, dropped


def _subset(part: Subset, wanted: int | None, spec: DataSpec, name: str) -> Subset:
    if wanted is None:
        return part
    if not 1 <= wanted <= len(part.rows):
        raise OfframpError(
            f"data.{name}_images is {wanted}, but the {name} split of '{spec.name}' has "
            f"{len(part.rows)} images; ask for 1 to {len(part.rows)}, or leave it out"
        )
    rows = stratified(part.labels, wanted, spec.split_seed, f"subset of {name}")
    return Subset(part.source, part.rows[rows])


def stratified(labels: Tensor, n: int, seed: int, purpose: str) -> Tensor:
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


def hold_out(
    labels: Tensor, names: Sequence[str], seed: int, images: int | None = None
) -> dict[str, Tensor]:
    """Rows of each held-out split in `names`, and of `train`, what is left; each ascending.

    Every held-out split takes 5 % of each class, at least 20 images of it; or `images` of them all,
    classes in proportion (rounded up). Never does it take more than a quarter of a class. A split's
    rows are a function of its name, the seed, `images` and the labels, whichever other splits are held
    out beside it. labels: [N] int64.

    Raises OfframpError when the classes are too small to hold anything out.
    """
    places = ("validation", "calibration", "test")
    taken: dict[str, list[Tensor]] = {name: [] for name in (*places, "train")}
    for rows in _shuffled_by_class(labels, seed, "hold-out"):
        k = _held_out(len(rows), len(labels), images)
        for i, name in enumerate(places):
            taken[name if name in names else "train"].append(rows[i * k : (i + 1) * k])
        taken["train"].append(rows[len(places) * k :])
    split = {name: torch.cat(taken[name]).sort().values for name in (*names, "train")}
    if short := next((name for name in names if not len(split[name])), None):
        raise OfframpError(
            f"too few training images to hold out a {short} split: no class has {HELD_OUT_MOST}; give "
            f"more training images, or a {short} split"
        )
    return split


def hold_out_groups(
    labels: Tensor, groups: Sequence[str], names: Sequence[str], seed: int, images: int | None = None
) -> dict[str, Tensor]:
    """As `hold_out`, but images of one group stay together: whole groups are held out, in a random
    order, each counted with the class that it shows most. labels: [N] int64.  groups: [N].

    A split may take a few images less of a class than `hold_out` would, never more.

    Raises OfframpError when the groups are too large to hold anything out.
    """
    rows_of, classes = _grouped(labels, groups)
    keys = list(rows_of)
    taken: dict[str, list[int]] = {name: [] for name in ("validation", "calibration", "test", "train")}
    for members in _shuffled_by_class(torch.tensor([classes[key] for key in keys]), seed, "hold-out"):
        waiting = [rows_of[keys[i]] for i in members.tolist()]
        n = sum(map(len, waiting))
        k = _held_out(n, len(labels), images)
        for name in ("validation", "calibration", "test"):
            place = taken[name if name in names else "train"]
            room = k
            left: list[list[int]] = []
            for rows in waiting:
                if len(rows) <= room:
                    room -= len(rows)
                    place.extend(rows)
                else:
                    left.append(rows)
            waiting = left
        taken["train"].extend(row for rows in waiting for row in rows)
    split = {name: torch.tensor(sorted(taken[name]), dtype=torch.int64) for name in (*names, "train")}
    if short := next((name for name in names if not len(split[name])), None):
        raise OfframpError(
            f"no group is small enough to hold out a {short} split; give more groups, or a {short} split"
        )
    return split


def _held_out(of_class: int, of_all: int, images: int | None) -> int:
    """How many of a class go into each held-out split."""
    if images is None:
        wanted = max(of_class // HELD_OUT_SHARE, HELD_OUT_LEAST)
    else:
        wanted = -(-of_class * images // of_all)
    return min(wanted, of_class // HELD_OUT_MOST)


def by_hash(labels: Tensor, keys: Sequence[str], share: float) -> Tensor:
    """Which rows are the test split of a data set that has none: [N] bool, true for `share` of each
    class, counted in images, at least one group of it and never all.

    labels: [N] int64.  keys: [N] what stays together: a group, or the hash of an image's content. The
    keys' own hashes choose, so neither the order of rows nor a seed changes the answer.

    Raises OfframpError unless 0 < share < 1.
    """
    if not 0 < share < 1:
        raise OfframpError(f"the test split's share is {share}; give one between 0 and 1")
    rows_of, classes = _grouped(labels, keys)
    test = torch.zeros(len(labels), dtype=torch.bool)
    ranked = sorted(rows_of, key=lambda key: hashlib.sha256(key.encode()).hexdigest())
    for label in sorted(set(classes.values())):
        mine = [rows_of[key] for key in ranked if classes[key] == label]
        target, count = share * sum(map(len, mine)), 0
        for rows in mine[:-1]:
            if count and count + len(rows) / 2 > target:
                break
            test[rows] = True
            count += len(rows)
    return test


def _grouped(labels: Tensor, groups: Sequence[str]) -> tuple[dict[str, list[int]], dict[str, int]]:
    """The rows of each group, in order, and the class that it shows most (of equals the lowest)."""
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(groups):
        rows.setdefault(key, []).append(row)
    shown = labels.tolist()
    classes = {}
    for key, members in rows.items():
        counts = Counter(shown[row] for row in members)
        classes[key] = min(counts, key=lambda label: (-counts[label], label))
    return rows, classes


def _shuffled_by_class(labels: Tensor, seed: int, purpose: str) -> list[Tensor]:
    """The rows of each class that occurs, by ascending class, each in a random order of its own."""
    classes, counts = torch.unique(labels, return_counts=True)
    groups = torch.split(labels.argsort(stable=True), counts.tolist())
    shuffled = []
    for label, rows in zip(classes.tolist(), groups, strict=True):
        generator = torch.Generator().manual_seed(derive(seed, purpose, label))
        shuffled.append(rows[torch.randperm(len(rows), generator=generator)])
    return shuffled
