"""A check of a data set, image by image: what is in it, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from offramp.data import split_file
from offramp.data.dataset import check_labels, moments, value_counts
from offramp.data.images import file_hashes
from offramp.data.images.files import Files, StoredImages
from offramp.data.images.geometry import Geometry
from offramp.data.load import geometry_of, names_of_classes, read_source
from offramp.data.notes import left_out, remarks
from offramp.data.progress import LoggedProgress, pool
from offramp.data.raw import RawData
from offramp.data.read import digests_of
from offramp.data.splits import Splits, Subset, by_class, choose, class_counts
from offramp.data_spec import SPLITS, DataSpec
from offramp.errors import OfframpError
from offramp.labels import several

BLOCK = 1024  # images that are in memory at once
FEW = 1000  # classes without images that have a line each
UNEVEN = 3  # times as many images in the largest class as in the smallest are worth a note

Size = tuple[int, int]  # width, height


@dataclass(frozen=True, eq=False)
class UnreadData:
    """A data set whose images are chosen, and not read yet."""

    raw: RawData
    classes: tuple[str, ...]
    chosen: Splits
    geometry: Geometry

    @property
    def parts(self) -> dict[str, Subset]:
        """Each split once."""
        parts = self.chosen.parts
        twin = parts["validation"] is parts["test"]
        return {name: parts[name] for name in SPLITS if not (twin and name == "validation")}

    @property
    def remarks(self) -> list[str]:
        """What to know of how the images were split, a line each: what became of a split that is not
        there, what is left out since another split shows its group, and what is small or unlike."""
        counts = by_class(self.chosen.parts, len(self.classes))
        lines = (*self.chosen.remarks, *left_out(self.chosen.dropped))
        sets = several(self.raw.train.labels)
        sizes = {name: len(part.rows) for name, part in self.chosen.parts.items()}
        return [*lines, *remarks(counts, self.classes, sizes if sets else None)]


@dataclass(frozen=True)
class SplitAudit:
    """What is in a split."""

    images: int  # how many
    by_class: Mapping[str, int]  # images of each class, in the order of the classes
    sizes: Mapping[Size, int]  # how many images are stored in each size, the most frequent first
    damaged: tuple[str, ...]  # a line for every image that cannot be read


@dataclass(frozen=True)
class Copies:
    """Images that are the same file, byte for byte (or the same pixels, where there are no files)."""

    splits: tuple[str, ...]  # where each is
    names: tuple[str, ...]  # what each is called
    classes: tuple[str, ...]  # its class


@dataclass(frozen=True)
class Audit:
    """What is in a data set."""

    classes: tuple[str, ...]  # their names
    splits: Mapping[str, SplitAudit]  # by name; `validation` is left out where it is the test split
    # per channel, of the training images as networks get them, scaled to [0, 1]; empty for float images
    mean: tuple[float, ...]
    std: tuple[float, ...]  # per channel, as `mean`
    copies: tuple[Copies, ...]  # of every image that is there more than once
    # numbers of images, and of groups, that were left out of a split since another one shows their group
    dropped: Mapping[str, Mapping[str, int]]
    wrong: tuple[str, ...]  # what must be mended, a line each
    notes: tuple[str, ...]  # what to know, a line each


def open_data(spec: DataSpec) -> UnreadData:
    """The data set that `spec` names. Raises OfframpError as `offramp.data.load` does for what is wrong
    with its folders, labels or counts."""
    raw, file = read_source(spec), split_file.named_by(spec)
    classes = names_of_classes(raw, spec.name)
    chosen = choose(raw, spec) if file is None else file.choose(raw)
    data = UnreadData(raw, classes, chosen, geometry_of(raw, spec))
    check_labels(spec.name, data.classes, {n: part.labels for n, part in data.parts.items()})
    return data


def rehash(data: UnreadData, before: Mapping[Path, Mapping[str, str]]) -> tuple[str, ...]:
    """Hash every image file anew, whatever is known of it. before: of `file_hashes.every_manifest`, from
    before the data were opened, which may hash files.

    Returns:
        A line for each file that is not what it was.

    Raises:
        OfframpError: for a file that cannot be read.
    """
    ids: dict[Path, dict[str, None]] = {}
    for split in data.raw.splits.values():
        if isinstance(split.images, Files):
            ids.setdefault(split.images.root, {}).update(dict.fromkeys(split.images.ids))
    return tuple(
        f"{root / name} is not what it was when it was last hashed; restore it, or keep it: its hash is "
        "known now"
        for root, names in ids.items()
        for name in file_hashes.refresh(root, list(names), before.get(root.resolve(), {}))
    )


def audit(data: UnreadData) -> Audit:
    """Open every image of a data set once and hash it; damaged ones are listed, not raised."""
    splits, counts = {}, {}
    for name, part in data.parts.items():
        progress = LoggedProgress(f"looking at images of {name}", len(part.rows))
        splits[name], counts[name] = _split(part, data.geometry, data.classes, progress)
    mean, std = moments(counts["train"].tolist()) if len(counts["train"]) else ((), ())
    copies = _copies(data)
    return Audit(
        classes=data.classes,
        splits=splits,
        mean=mean,
        std=std,
        copies=copies,
        dropped=data.chosen.dropped,
        wrong=tuple(_wrong(data, splits, copies)),
        notes=tuple(_notes(data, splits, copies)),
    )


def _split(
    part: Subset, geometry: Geometry, classes: Sequence[str], progress: LoggedProgress
) -> tuple[SplitAudit, Tensor]:
    """What is in a part, and how often each value occurs in each channel."""
    sizes: Counter[Size] = Counter()
    damaged: list[str] = []
    counts = torch.zeros(0)
    for rows in torch.split(part.rows, BLOCK):
        for image in progress.over(_examined(part, rows, geometry)):
            if isinstance(image, str):
                damaged.append(image)
                continue
            size, values = image
            sizes[size] += 1
            if values is not None:
                counts = counts + values if counts.shape == values.shape else values
    numbers = class_counts(part.labels, len(classes))
    images_of = dict(zip(classes, numbers, strict=True))
    return SplitAudit(len(part.rows), images_of, dict(sizes.most_common()), tuple(damaged)), counts


ExaminedImage = tuple[Size, Tensor | None] | str  # its size and values, or what is wrong with it


def _examined(part: Subset, rows: Tensor, geometry: Geometry) -> Iterator[ExaminedImage]:
    source = part.source.images
    if not isinstance(source, StoredImages):
        yield from (_facts(image, geometry) for image in part.source.read(rows))
        return

    def examine(row: int) -> ExaminedImage:
        try:
            image = source.open(row)
        except OfframpError as error:
            return str(error)
        return _facts(image, geometry)

    with pool(len(rows)) as threads:
        yield from threads.map(examine, rows.tolist())


def _facts(image: Image.Image | Tensor, geometry: Geometry) -> tuple[Size, Tensor | None]:
    """An image's size, and how often each value occurs in each channel; None for floats."""
    size = (image.shape[2], image.shape[1]) if isinstance(image, Tensor) else image.size
    floats = isinstance(image, Tensor) and image.is_floating_point()
    return size, None if floats else value_counts(geometry.of(image)[None])


def _copies(data: UnreadData) -> tuple[Copies, ...]:
    places: dict[str, list[tuple[str, str, str]]] = {}
    for split, part in data.parts.items():
        source, sets = part.source.images, several(part.labels)
        rows = zip(part.rows.tolist(), part.labels.tolist(), digests_of(part), strict=True)
        for row, label, sha in rows:
            name = source.name(row) if isinstance(source, StoredImages) else f"{split} image {row}"
            names = [c for c, yes in zip(data.classes, label, strict=True) if yes] if sets else []
            title = ", ".join(names) or "no label" if sets else data.classes[label]
            places.setdefault(sha, []).append((split, name, title))
    return tuple(
        Copies(*(tuple(column) for column in zip(*same, strict=True)))
        for same in places.values()
        if len(same) > 1
    )


def _wrong(data: UnreadData, splits: Mapping[str, SplitAudit], copies: Sequence[Copies]) -> list[str]:
    lines = [line for split in splits.values() for line in split.damaged]
    for name, split in splits.items():
        absent = [label for label, count in split.by_class.items() if not count]
        none = f"the {name} split has no image of"
        lines += [f"{none} class '{label}'; add some" for label in absent[:FEW]]
        if len(absent) > FEW:
            lines.append(f"{none} {len(absent) - FEW:,} more; correct the labels")
    across: dict[str, list[Copies]] = {}
    for same in copies:
        if len(set(same.splits)) > 1:
            across.setdefault(" and ".join(sorted(set(same.splits))), []).append(same)
    for pair, images in across.items():
        lines.append(
            f"{len(images)} image{'s are' if len(images) > 1 else ' is'} in both {pair}, such as "
            f"{' = '.join(images[0].names[:2])}; remove all but one of each"
        )
    torn = [same for same in copies if len(set(same.classes)) > 1]
    if torn:
        lines.append(
            f"{len(torn)} image{'s have' if len(torn) > 1 else ' has'} several classes, such as "
            f"{torn[0].names[0]} ({torn[0].classes[0]}) and {torn[0].names[1]} ({torn[0].classes[1]}); "
            "keep the right one"
        )
    sizes = {size for split in splits.values() for size in split.sizes}
    if data.geometry.size is None and len(sizes) > 1:
        lines.append("images differ in size; set data.size, which makes one size of them")
    return lines


def _notes(data: UnreadData, splits: Mapping[str, SplitAudit], copies: Sequence[Copies]) -> list[str]:
    lines = data.remarks
    for name in splits:
        again = sum(c.splits.count(name) - 1 for c in copies if c.splits.count(name) > 1)
        if again:
            repeat = "image repeats" if again == 1 else "images repeat"
            lines.append(f"{again} {repeat} another one of {name}")
    present = [count for count in splits["train"].by_class.values() if count]
    if present and max(present) >= UNEVEN * min(present):  # none: of several labels, no image has any
        lines.append(
            f"the largest class has {max(present) / min(present):.1f} times the training images of the "
            "smallest; look at balanced accuracy, or set recipe.class_weights: balanced"
        )
    return lines
