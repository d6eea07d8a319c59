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
from offramp.data.images.files import Files, Opened
from offramp.data.images.geometry import Geometry
from offramp.data.load import geometry_of, read_source
from offramp.data.progress import Pace, pool
from offramp.data.raw import RawData
from offramp.data.read import digests_of
from offramp.data.remarks import remarks
from offramp.data.splits import Splits, Subset, by_class, choose, left_out
from offramp.data_spec import SPLITS, DataSpec
from offramp.errors import OfframpError
from offramp.inputs import is_text

BLOCK = 1024  # images that are in memory at once
UNEVEN = 3  # times as many images in the largest class as in the smallest are worth a note

Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class SplitAudit:
    """images: how many.  by_class: of each class, in the order of the classes.
    sizes: how many images are stored in each size, the most frequent first.
    damaged: what is said of every image that cannot be read.
    """

    images: int
    by_class: Mapping[str, int]
    sizes: Mapping[Size, int]
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class Copies:
    """Images that are the same file, byte for byte (or the same pixels, where there are no files):
    where each is (its split), what it is called, and its class."""

    splits: tuple[str, ...]
    names: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """splits: by name; `validation` is left out where it is the test split.
    mean, std: per channel, of the training images as networks get them, scaled to [0, 1]; empty for
        float images.
    copies: of every image that is there more than once.
    dropped: numbers of images, and of groups, that were left out of a split since another one shows
        their group.
    wrong: what must be mended.  notes: what to know; each is a line.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, SplitAudit]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    copies: tuple[Copies, ...]
    dropped: Mapping[str, Mapping[str, int]]
    wrong: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Sources:
    """A data set before its pixels are read: what `offramp.data.images.sheet` shows samples of."""

    raw: RawData
    chosen: Splits
    geometry: Geometry

    @property
    def classes(self) -> tuple[str, ...]:
        return self.raw.classes or tuple(map(str, range(int(self.raw.train.labels.max()) + 1)))

    @property
    def parts(self) -> dict[str, Subset]:
        """Each split once."""
        parts = dict(self.chosen.parts)
        if parts["validation"] is parts["test"]:
            del parts["validation"]
        return {name: parts[name] for name in SPLITS if name in parts}


def open_sources(spec: DataSpec) -> Sources:
    """The data set that `spec` names. Raises OfframpError as `offramp.data.load` does for what is wrong
    with its folders, labels or counts."""
    raw = read_source(spec)
    if spec.split_file is None:
        chosen = choose(raw, spec)
    else:
        path = Path(spec.split_file).expanduser()
        chosen = split_file.choose(path, split_file.read(path), raw)
    found = Sources(raw, chosen, geometry_of(raw, spec))
    check_labels(spec.name, found.classes, {n: part.labels for n, part in found.parts.items()})
    return found


def rehash(sources: Sources, before: Mapping[Path, Mapping[str, str]]) -> tuple[str, ...]:
    """Hash every image file anew, whatever is kept of it; a line for each that is not what it was.
    before: of `file_hashes.kept`, from before the sources were opened, which may hash files.

    Raises OfframpError for a file that cannot be read.
    """
    raw = sources.raw
    given = [s.images for s in (raw.train, raw.validation, raw.calibration, raw.test) if s is not None]
    ids: dict[Path, dict[str, None]] = {}
    for images in given:
        if isinstance(images, Files):
            ids.setdefault(images.root, {}).update(dict.fromkeys(images.ids))
    return tuple(
        f"{root / name} is not what it was when it was last hashed; restore it, or keep it: its hash is "
        "known now"
        for root, names in ids.items()
        for name in file_hashes.refresh(root, list(names), before.get(root.resolve(), {}))
    )


def audit(sources: Sources) -> Audit:
    """Open every image of a data set once and hash it; damaged ones are listed, not raised.

    Raises OfframpError for texts.
    """
    splits, counts = {}, {}
    for name, part in sources.parts.items():
        pace = Pace(f"looking at images of {name}", len(part.rows))
        splits[name], counts[name] = _split(part, sources.geometry, sources.classes, pace)
    mean, std = moments(counts["train"].tolist()) if len(counts["train"]) else ((), ())
    copies = _copies(sources)
    return Audit(
        classes=sources.classes,
        splits=splits,
        mean=mean,
        std=std,
        copies=copies,
        dropped=sources.chosen.dropped,
        wrong=tuple(_wrong(sources, splits, copies)),
        notes=tuple(_notes(sources, splits, copies)),
    )


def _split(
    part: Subset, geometry: Geometry, classes: Sequence[str], pace: Pace
) -> tuple[SplitAudit, Tensor]:
    """What is in a part, and how often each value occurs in each channel."""
    sizes: Counter[Size] = Counter()
    damaged: list[str] = []
    counts = torch.zeros(0)
    for rows in torch.split(part.rows, BLOCK):
        for size, found, error in pace.over(_looked_at(part, rows, geometry)):
            if error is not None:
                damaged.append(error)
                continue
            sizes[size] += 1
            if found is not None:
                counts = counts + found if counts.shape == found.shape else found
    numbers = torch.bincount(part.labels, minlength=len(classes)).tolist()
    by_class = dict(zip(classes, numbers, strict=True))
    return SplitAudit(len(part.rows), by_class, dict(sizes.most_common()), tuple(damaged)), counts


Examined = tuple[Size, Tensor | None, str | None]  # an image's size, its values, what is wrong with it


def _looked_at(part: Subset, rows: Tensor, geometry: Geometry) -> Iterator[Examined]:
    source = part.source.images
    if not isinstance(source, Opened):
        for image in part.source.read(rows):
            yield _size(image), _counts(image, geometry), None
        return

    def look(row: int) -> Examined:
        try:
            image = source.open(row)
        except OfframpError as error:
            return (0, 0), None, str(error)
        return _size(image), _counts(image, geometry), None

    with pool(len(rows)) as threads:
        yield from threads.map(look, rows.tolist())


def _size(image: Image.Image | Tensor) -> Size:
    if not isinstance(image, Tensor):
        return image.size
    if is_text(tuple(image.shape)):
        raise OfframpError(
            "data describe and data check look at images, and these are texts; offramp run "
            "--dry-run says how they are split"
        )
    return image.shape[2], image.shape[1]


def _counts(image: Image.Image | Tensor, geometry: Geometry) -> Tensor | None:
    if isinstance(image, Tensor) and image.is_floating_point():
        return None
    return value_counts(geometry.of(image)[None])


def _copies(sources: Sources) -> tuple[Copies, ...]:
    places: dict[str, list[tuple[str, str, str]]] = {}
    for split, part in sources.parts.items():
        source = part.source.images
        for row, label, sha in zip(
            part.rows.tolist(), part.labels.tolist(), digests_of(part), strict=True
        ):
            name = source.name(row) if isinstance(source, Opened) else f"{split} image {row}"
            places.setdefault(sha, []).append((split, name, sources.classes[label]))
    return tuple(
        Copies(*(tuple(column) for column in zip(*found, strict=True)))
        for found in places.values()
        if len(found) > 1
    )


def _wrong(sources: Sources, splits: Mapping[str, SplitAudit], copies: Sequence[Copies]) -> list[str]:
    lines = [line for split in splits.values() for line in split.damaged]
    for name, split in splits.items():
        for label, count in split.by_class.items():
            if not count:
                lines.append(f"the {name} split has no image of class '{label}'; add some")
    across: dict[str, list[Copies]] = {}
    for each in copies:
        if len(set(each.splits)) > 1:
            across.setdefault(" and ".join(sorted(set(each.splits))), []).append(each)
    for pair, found in across.items():
        lines.append(
            f"{len(found)} image{'s are' if len(found) > 1 else ' is'} in both {pair}, such as "
            f"{' = '.join(found[0].names[:2])}; remove all but one of each"
        )
    torn = [c for c in copies if len(set(c.classes)) > 1]
    if torn:
        lines.append(
            f"{len(torn)} image{'s have' if len(torn) > 1 else ' has'} several classes, such as "
            f"{torn[0].names[0]} ({torn[0].classes[0]}) and {torn[0].names[1]} ({torn[0].classes[1]}); "
            "keep the right one"
        )
    sizes = {size for split in splits.values() for size in split.sizes}
    if sources.geometry.size is None and len(sizes) > 1:
        lines.append("images differ in size; set data.size, which makes one size of them")
    return lines


def told(sources: Sources) -> list[str]:
    """What to know of how the images were split, a line each: what became of a split that is not there,
    what is left out since another split shows its group, and what is small or unlike."""
    counts = by_class(sources.chosen.parts, len(sources.classes))
    chosen = sources.chosen
    return [*chosen.remarks, *left_out(chosen.dropped), *remarks(counts, sources.classes)]


def _notes(sources: Sources, splits: Mapping[str, SplitAudit], copies: Sequence[Copies]) -> list[str]:
    lines = [*sources.chosen.remarks, *left_out(sources.chosen.dropped)]
    for name in splits:
        again = sum(c.splits.count(name) - 1 for c in copies if c.splits.count(name) > 1)
        if again:
            repeat = "image repeats" if again == 1 else "images repeat"
            lines.append(f"{again} {repeat} another one of {name}")
    present = [count for count in splits["train"].by_class.values() if count]
    if max(present) >= UNEVEN * min(present):
        lines.append(
            f"the largest class has {max(present) / min(present):.1f} times the training images of the "
            "smallest; look at balanced accuracy, or set recipe.class_weights: balanced"
        )
    counts = by_class(sources.chosen.parts, len(sources.classes))
    return [*lines, *remarks(counts, sources.classes)]
