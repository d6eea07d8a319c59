"""Which image is in which split: subsets and hold-outs, before any pixel is read.

Everything here is a function of the seed, the labels and the groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

import torch
from torch import Tensor

from offramp.data.images.files import Files, StoredImages
from offramp.data.raw import ImageRows, RawData, RawSplit
from offramp.data_spec import HELD_OUT, DataSpec
from offramp.errors import OfframpError
from offramp.hashing import derive, text_digest
from offramp.labels import several
from offramp.units import counted

PRECEDENCE = ("test", "validation", "calibration", "train")  # which split keeps a group that two show
HELD_OUT_SHARE = 20  # one in twenty: 5 %
HELD_OUT_LEAST = 20, 200  # least images of a split: so many for each class, or so many in all if fewer
HELD_OUT_MOST = 4  # never more than one in four


@dataclass(frozen=True, eq=False)
class Subset:
    """The images of one split: `rows` [n] int64, ascending, of `source`."""

    source: RawSplit
    rows: Tensor

    @property
    def labels(self) -> Tensor:
        return self.source.labels[self.rows]

    def only(self, mask: Tensor) -> Subset:
        """The part of it that `mask` [n] bool chooses."""
        return Subset(self.source, self.rows[mask])


@dataclass(frozen=True, eq=False)
class Splits:
    """Which images make which split."""

    # the four splits, by name; `validation` may be the same object as `test`
    parts: Mapping[str, Subset]
    # what was left out because its group is in another split: by split, the number of images and of
    # groups
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()  # what to know of them, a line each


def by_class(parts: Mapping[str, Subset], classes: int) -> dict[str, list[int]]:
    """The number of images of each class, by split; labels outside of the classes are passed over."""
    return {name: class_counts(part.labels, classes) for name, part in parts.items()}


def class_counts(labels: Tensor, classes: int) -> list[int]:
    """The number of images of each class; as `by_class`."""
    if several(labels):
        each: list[int] = labels.sum(0).tolist()
        return each
    numbers = labels[(labels >= 0) & (labels < classes)]
    counts: list[int] = torch.bincount(numbers, minlength=classes).tolist()
    return counts


def strata(labels: Tensor) -> Tensor:
    """Numbers [N] of what is drawn in proportion: classes, or combinations of several labels. Those
    that few images have are one."""
    if not several(labels):
        return labels
    _, numbers, counts = torch.unique(labels, dim=0, return_inverse=True, return_counts=True)
    return torch.where(counts[numbers] < HELD_OUT_LEAST[0], len(counts), numbers)


def choose(raw: RawData, spec: DataSpec) -> Splits:
    """Subsets and hold-outs.

    Images of one group are never in two splits: of a group that the source shows in several, the test
    split's stay, and the training split's are dropped and counted.

    Raises:
        OfframpError: for counts that cannot be had.
    """
    if spec.validation == "val" and raw.validation is None:
        raise OfframpError(f"data set '{spec.name}' has no validation split; leave data.validation out")
    if spec.test_images is not None and raw.test is None:
        raise OfframpError(f"data set '{spec.name}' has no test split; leave data.test_images out")
    sources = {"validation": raw.validation, "calibration": raw.calibration, "test": raw.test}
    if spec.validation == "test":
        del sources["validation"]
    missing = [name for name, source in sources.items() if source is None]
    official = {name: source for name, source in sources.items() if source is not None}
    unknown = raw.train is raw.calibration  # what a network was trained on is not at hand
    every = official if unknown else {"train": raw.train, **official}
    whole, dropped = _apart({n: Subset(s, torch.arange(len(s.labels))) for n, s in every.items()})
    pool = _subset(whole[raw.pool], spec.train_images, spec, raw.pool)
    rows_of = hold_out(
        pool.labels,
        missing,
        spec.draw,
        spec.held_out_images,
        pool.source.groups and [pool.source.groups[row] for row in pool.rows.tolist()],
        pool.source.digests(pool.rows) if missing else None,
    )
    rows_of[raw.pool] = rows_of.pop("train")
    parts = {name: Subset(pool.source, pool.rows[rows]) for name, rows in rows_of.items()}
    parts |= {name: part for name, part in whole.items() if name not in (raw.pool, "train")}
    if raw.pool != "train":
        parts["train"] = Subset(raw.train, pool.rows[:0]) if unknown else whole["train"]
    if raw.test is not None:
        parts["test"] = _subset(whole["test"], spec.test_images, spec, "test")
    parts.setdefault("validation", parts["test"])
    remarks = raw.remarks
    if raw.validation is not None and raw.test is None and spec.validation == "held-out":
        images = counted(len(parts["test"].rows), "image")
        remarks += (
            f"there is a validation split and no test split, so {images} of train are held out as test "
            "(data.validation: val says that it is meant so); data.test: val makes it the test split",
        )
    return Splits(parts, dropped, remarks)


def with_test_split(raw: RawData, spec: DataSpec) -> RawData:
    """What a source returned, with the test split that `spec.test` names.

    Its validation split becomes the test split, or its test images join those of train.

    Raises:
        OfframpError: where there is no such split, and for a test split beside validation.
    """
    match spec.test:
        case "test":
            return raw
        case "held-out":
            if spec.test_images is not None:
                raise OfframpError("data.test_images is for the source's own test split; leave it out")
            return replace(raw, train=_joined(raw.train, raw.test), test=None)
        case "val":
            if raw.validation is None or raw.test is not None:
                why = "no validation split" if raw.validation is None else "a test split"
                raise OfframpError(f"data set '{spec.name}' has {why}; leave data.test out")
            return replace(raw, test=raw.validation, validation=None)
        case _:
            assert_never(spec.test)


def _joined(train: RawSplit, test: RawSplit | None) -> RawSplit:
    """One split of two."""
    if test is None:
        return train
    first, second = train.images, test.images
    images: ImageRows | StoredImages
    if isinstance(first, Files) and isinstance(second, Files) and first.root == second.root:
        images = Files(first.root, first.ids + second.ids)
    elif (
        isinstance(first, Tensor) and isinstance(second, Tensor) and first.shape[1:] == second.shape[1:]
    ):
        images = torch.cat([first, second])
    else:
        raise OfframpError("data.test: held-out is for files in folders and for arrays; leave it out")
    groups = None
    if train.groups or test.groups:
        groups = tuple(g for n, s in (("train", train), ("test", test)) for g in _named_groups(n, s))
    return RawSplit(images, torch.cat([train.labels, test.labels]), groups)


def _named_groups(name: str, split: RawSplit) -> tuple[str, ...]:
    """The groups of a split; where it has none, each image is one."""
    return split.groups or tuple(f"{name} image {row}" for row in range(len(split.labels)))


def _apart(parts: Mapping[str, Subset]) -> tuple[dict[str, Subset], dict[str, dict[str, int]]]:
    """The parts without the images whose group a part of higher precedence shows; their numbers."""
    seen: set[str] = set()
    apart, dropped = {}, {}
    for name in PRECEDENCE:
        if name not in parts:
            continue
        part, groups = parts[name], parts[name].source.groups
        if groups is not None:
            fresh = torch.tensor([group not in seen for group in groups])
            if not fresh.all():
                again = {group for group in groups if group in seen}
                dropped[name] = {"images": int((~fresh).sum()), "groups": len(again)}
                part = part.only(fresh)
            if not len(part.rows):
                raise OfframpError(
                    f"every group of the {name} split is in another split too; correct the groups"
                )
            seen |= set(groups)
        apart[name] = part
    return apart, dropped


def _subset(part: Subset, count: int | None, spec: DataSpec, name: str) -> Subset:
    if count is None:
        return part
    if count > len(part.rows):
        raise OfframpError(
            f"data.{name}_images is {count}, but the {name} split of '{spec.name}' has "
            f"{len(part.rows)} images; ask for 1 to {len(part.rows)}, or leave it out"
        )
    return Subset(part.source, part.rows[stratified(part.labels, count, spec.draw, f"subset of {name}")])


def split_off(train: RawSplit, share: float) -> dict[str, RawSplit]:
    """`train` in two: `test` and `train`, what is left. share: how much of each class is test, chosen by
    hashes of files, or of groups.

    Raises:
        OfframpError: where each class is one image or one group.
    """
    files, rows = train.images, torch.arange(len(train.labels))
    assert isinstance(files, Files)
    contents = files.digests(rows)
    test = by_hash(train.labels, together(train.groups or contents, contents), share)
    if not test.any():
        kind = "images of one group" if train.groups else "one image"
        raise OfframpError(
            f"no test split can be made of {files.root}: each class has {kind} only; add more, or a "
            "test split"
        )

    def only(chosen: Tensor) -> RawSplit:
        groups = train.groups and tuple(train.groups[row] for row in chosen.tolist())
        return RawSplit(files.only(chosen), train.labels[chosen], groups)

    return {"train": only(rows[~test]), "test": only(rows[test])}


def stratified(labels: Tensor, n: int, seed: int, purpose: str) -> Tensor:
    """`n` rows that keep the proportions of the classes.

    The largest remainders are rounded up; the lower class number wins a tie. labels: [N] int64; purpose:
    of the draw: another one draws other rows.

    Returns:
        [n] int64, ascending.

    Raises:
        OfframpError: unless 1 ≤ n ≤ N.
    """
    if not 1 <= n <= len(labels):
        raise OfframpError(f"cannot take {n} images of {len(labels)}; ask for 1 to {len(labels)}")
    if n == len(labels):
        return torch.arange(n)
    groups = _shuffled_by_class(strata(labels), seed, purpose)
    counts = _in_proportion([len(rows) for rows in groups], n)
    return torch.cat([rows[:k] for rows, k in zip(groups, counts, strict=True)]).sort().values


def hold_out(
    labels: Tensor,
    names: Sequence[str],
    seed: int,
    images: int | None = None,
    groups: Sequence[str] | None = None,
    contents: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """Which rows each held-out split takes, and which are left to `train`.

    Every held-out split takes 5 % of each class, and at least 20 images for each class there is, or 200
    where that is fewer, classes in proportion. Or it takes `images`, classes in proportion (rounded up).
    Of a class of four or more it takes one at least, and never more than a quarter. A split's rows are a
    function of its name, the seed, `images` and the rows, whichever other splits are held out beside it.

    Images with an equal group or content stay together: they are held out only as a whole, and count for
    the class that they show most. So a split may take a few images less of a class, never more. Equal
    contents are torn apart where a split would else be empty.

    Args:
        labels: [N] int64.
        names: Of the held-out splits.
        seed: What they are drawn with.
        images: About so many in each.
        groups: [N] names of what belongs together, such as patients.
        contents: [N] hashes of what each image is read from.

    Returns:
        The rows of each of `names`, and of `train`, ascending.

    Raises:
        OfframpError: when the classes are too small, or the groups too large, to hold anything out.
    """
    labels = strata(labels)
    alone = groups or list(map(str, range(len(labels))))
    tied = alone if contents is None else together(alone, contents)
    (units, classes), (bundles, majority) = _grouped(labels, alone), _grouped(labels, tied)
    keys = list(units)
    waiting: list[list[list[int]]] = []
    numbers: list[int] = []  # of images of each class
    for members in _shuffled_by_class(torch.tensor([classes[key] for key in keys]), seed, "hold-out"):
        own = [keys[i] for i in members.tolist()]
        numbers.append(sum(len(units[key]) for key in own))
        first = dict.fromkeys(tied[units[key][0]] for key in own)  # waits where its first unit does
        waiting.append([bundles.pop(name) for name in first if majority[name] == classes[own[0]]])
    rows_of: dict[str, list[int]] = {name: [] for name in HELD_OUT}
    rows_of["train"] = [row for rows in bundles.values() for row in rows]
    sizes = _held_out(numbers, images)
    for left, size in zip(waiting, sizes, strict=True):
        for name in HELD_OUT:
            room, rest = size, []
            for rows in left:
                if len(rows) > room:
                    rest.append(rows)
                    continue
                room -= len(rows)
                rows_of[name if name in names else "train"].extend(rows)
            left = rest
        rows_of["train"].extend(row for rows in left for row in rows)
    split = {name: torch.tensor(sorted(rows_of[name]), dtype=torch.int64) for name in (*names, "train")}
    if short := next((name for name in names if not len(split[name])), None):
        if contents is not None:  # such as one image many times: it is counted among the duplicates
            return hold_out(labels, names, seed, images, groups)
        reason = (
            f"too few training images to hold out a {short} split: no class has {HELD_OUT_MOST}"
            if max(sizes, default=0) == 0
            else f"no group is small enough to hold out a {short} split"
        )
        raise OfframpError(f"{reason}; give more training images, or a {short} split")
    return split


def _held_out(counts: Sequence[int], images: int | None) -> list[int]:
    """How many of each class go into each held-out split. counts: of the classes' images."""
    total = sum(counts)
    if images is None:
        sizes = [n // HELD_OUT_SHARE for n in counts]
        each, most = HELD_OUT_LEAST
        least = min(each * len(counts), most)
        if sum(sizes) < least:
            sizes = _in_proportion(counts, least)
            if all(abs(n * least - each * total) < total for n in counts):
                sizes = [each] * len(counts)  # classes that differ by less than an image are even
    else:
        sizes = [-(-n * images // total) for n in counts]
    return [min(max(k, 1), n // HELD_OUT_MOST) for k, n in zip(sizes, counts, strict=True)]


def _in_proportion(counts: Sequence[int], n: int) -> list[int]:
    """`n` in whole numbers as the counts are to each other: the largest remainders are rounded up, of
    equal ones the first."""
    total = sum(counts)
    shares = [count * n // total for count in counts]
    rest = [count * n % total for count in counts]
    for i in sorted(range(len(counts)), key=lambda i: -rest[i])[: n - sum(shares)]:
        shares[i] += 1
    return shares


def together(names: Sequence[str], contents: Sequence[str]) -> list[str]:
    """A name for all that is tied to each row, by a name or a content that two rows share.

    Ties go over any number of rows; the name is the least of theirs. names: of groups; contents: hashes
    of what the rows are read from; [N] each.

    Example:
        >>> together(["b", "a", "c"], ["one", "one", "two"])
        ['a', 'a', 'c']
    """
    above: dict[str, str] = {}  # a forest of disjoint sets, whose roots are the least names

    def least(name: str) -> str:
        while (up := above.get(name, name)) != name:
            above[name] = name = above.get(up, up)
        return name

    first: dict[str, str] = {}
    for name, content in zip(names, contents, strict=True):
        low, high = sorted((least(name), least(first.setdefault(content, name))))
        above[high] = low
    return [least(name) for name in names]


def by_hash(labels: Tensor, keys: Sequence[str], share: float) -> Tensor:
    """Which rows are the test split of a data set that has none.

    The keys' own hashes choose, so neither the order of rows nor a seed changes the answer. keys: [N]
    what stays together: a group, or the hash of an image's content; share: of each class, counted in
    images; at least one group of it and never all.

    Returns:
        [N] bool, true for the test split.

    Raises:
        OfframpError: unless 0 < share < 1.
    """
    if not 0 < share < 1:
        raise OfframpError(f"the test split's share is {share}; give one between 0 and 1")
    labels = strata(labels)
    rows_of, classes = _grouped(labels, keys)
    test = torch.zeros(len(labels), dtype=torch.bool)
    ranked = sorted(rows_of, key=text_digest)
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
    numbers = labels.tolist()
    classes = {}
    for key, members in rows.items():
        counts = Counter(numbers[row] for row in members)
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
