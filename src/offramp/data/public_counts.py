"""How many images the public data sets hold, so that a study can be planned before they are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from offramp.augment import Augment
from offramp.data.dataset import Data, FileSplit
from offramp.data.fetch import kept
from offramp.data.images.geometry import Geometry
from offramp.data.load import shared_folder
from offramp.data.raw import RawData, RawSplit
from offramp.data.splits import Subset, choose
from offramp.data_spec import DataSpec
from offramp.errors import OfframpError
from offramp.hashing import digest

CHANGELESS = frozenset({"image_column", "label_column", "official", "split", "partial"})
"""Options of sources that leave the counts below as they are, or of which `counts_of` knows better."""


@dataclass(frozen=True)
class Declared:
    """train, test: images of each class.  shape: (C, H, W) as images come; where files differ in size,
    as the paper takes them."""

    train: tuple[int, ...]
    test: tuple[int, ...]
    shape: tuple[int, int, int]


DECLARED: Mapping[str, Declared] = {
    # NIH's Data_Entry_2017_v2020.csv: of 112,120 images of 30,805 patients 60,361 have no finding and
    # 1,431 pneumonia, 322 of these nothing else. A fifth of each is test; whole patients make it less
    # even than that.
    "chestxray14": Declared((48_289, 1_145), (12_072, 286), (3, 224, 224)),
    "cifar10": Declared((5_000,) * 10, (1_000,) * 10, (3, 32, 32)),
    "cifar100": Declared((500,) * 100, (100,) * 100, (3, 32, 32)),
    # The list of Tian et al. (2020, Contrastive Multiview Coding), cut from ILSVRC 2012, as the card of
    # hf.co/datasets/clane9/imagenet-100 counts it: 126,689 and 5,000 images. Classes have 732 to 1,300
    # of the former; here all have their mean.
    "imagenet100": Declared((1_267,) * 89 + (1_266,) * 11, (50,) * 100, (3, 224, 224)),
}

# NIH's train_val_list.txt (86,524 images) and test_list.txt (25,596).
OFFICIAL_CHEST = Declared((50_500, 876), (9_861, 555), (3, 224, 224))


def counts_of(name: str, options: Mapping[str, Any]) -> Declared | None:
    """What is known of a data set read with these options; None where nothing is."""
    if not options.keys() <= CHANGELESS:
        return None
    if name == "chestxray14" and options.get("split") == "official":
        return OFFICIAL_CHEST
    return DECLARED.get(name)


@dataclass(frozen=True)
class _Nowhere:
    """Images that are not here: they can be counted, and that is all."""

    name: str
    ids: tuple[str, ...] = ()

    def open(self, row: int) -> Any:
        raise OfframpError(f"image {row} of '{self.name}' is not here; this plan is for looking only")


def missing(spec: DataSpec) -> str | None:
    """Why `spec` can be planned by declared counts only: its folder is not there. None where it is,
    and where no counts are declared for what it asks."""
    if spec.split_file is not None or counts_of(spec.name, dict(spec.options)) is None:
        return None
    root = spec.root or shared_folder(spec.name)
    if spec.url is not None and not (root and Path(root).expanduser().is_dir()):
        return None if kept(spec) is not None else f"{spec.url} is not fetched yet"
    if root is None:
        return "no folder is given (data.root, --data-root or OFFRAMP_DATA)"
    return None if Path(root).expanduser().is_dir() else f"there is no folder {root}"


def declared_data(spec: DataSpec, augment: Augment | None = None) -> Data:
    """Splits of the declared sizes, with labels and without images. Their digests stand for no data.

    Raises OfframpError for counts that cannot be had.
    """
    counts = counts_of(spec.name, dict(spec.options)) or DECLARED[spec.name]
    raw = RawData(_labels(counts.train), _labels(counts.test), tuple(map(str, range(len(counts.train)))))
    channels, height, width = counts.shape
    side = spec.size
    shape = (spec.channels or channels, side or height, side or width)
    made: dict[int, Any] = {}
    parts = choose(raw, spec).parts
    for name, part in parts.items():
        made.setdefault(id(part), _split(spec, name, part, shape))
    splits = {name: made[id(part)] for name, part in parts.items()}
    zeros, ones = (0.0,) * shape[0], (1.0,) * shape[0]
    return Data(spec.name, raw.classes, **splits, mean=zeros, std=ones, augment=augment)


def _labels(counts: tuple[int, ...]) -> RawSplit:
    labels = torch.repeat_interleave(torch.tensor(counts))
    return RawSplit(labels, labels)


def _split(spec: DataSpec, name: str, part: Subset, shape: tuple[int, int, int]) -> FileSplit:
    nowhere: Any = _Nowhere(spec.name)
    labels: Tensor = part.source.labels[part.rows]
    mark = digest(["declared", spec.name, name, len(labels), list(shape)])
    return FileSplit(nowhere, part.rows, Geometry(), labels, shape, mark)
