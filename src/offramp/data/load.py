"""From a data set's name to four splits: subset, hold-outs, statistics, shared by all sources."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from offramp.data import split_file
from offramp.data.choose import choose
from offramp.data.custom import call
from offramp.data.dataset import SPLITS, Data, statistics
from offramp.data.geometry import Geometry
from offramp.data.raw import RawData
from offramp.data.read import take
from offramp.data.samples import Samples, class_names, read_given, read_samples
from offramp.data.sources import DATASETS
from offramp.data.spec import DataSpec
from offramp.errors import OfframpError, nearest
from offramp.usercode import function, is_user_code

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load(spec: DataSpec) -> Data:
    """The data set that `spec` names, on the CPU.

    Raises OfframpError for an unknown name or option, and for whatever is wrong with the files.
    """
    return assemble(read_source(spec), spec)


def read_source(spec: DataSpec) -> RawData:
    """What the source that `spec` names returns; no image that is lazy is read yet.

    Raises OfframpError as `load` does.
    """
    if is_user_code(spec.name):
        make = function(spec.name, "data.name")
        return call(spec.name, make, _arguments(make, spec, None))
    if spec.name not in DATASETS:
        raise OfframpError(
            f"unknown data set '{spec.name}'{nearest(spec.name, DATASETS)} "
            "(your own: path/to/file.py:function)"
        )
    shared = os.environ.get("OFFRAMP_DATA")
    default = str(Path(shared) / spec.name) if shared else None
    source = DATASETS[spec.name]
    return source(**_arguments(source, spec, default))


def save_splits(spec: DataSpec, path: Path) -> None:
    """Write which image is in which split, with its hash, for `DataSpec.split_file`.

    Raises OfframpError as `load` does.
    """
    raw = read_source(spec)
    split_file.save(path, raw, choose(raw, spec))


def from_dataset(
    train: Samples | tuple[Any, Any],
    validation: Samples | tuple[Any, Any] | None = None,
    calibration: Samples | tuple[Any, Any] | None = None,
    test: Samples | tuple[Any, Any] | None = None,
    *,
    classes: Sequence[str] | None = None,
    name: str = "custom",
    split_seed: int = 0,
) -> Data:
    """Data from map-style Datasets of (image, label), or pairs of arrays (images, labels).

    A split that is not given is held out of train. classes: names; by default those the Dataset
    names itself (`train.classes`), else the numbers of the training labels. See
    `offramp.data.samples.read_samples` for the forms an image may take.

    Raises OfframpError naming the sample that is wrong, or the split that would be empty.
    """
    raw = RawData(
        train=read_samples(train, "train"),
        validation=read_given(validation, "validation"),
        calibration=read_given(calibration, "calibration"),
        test=read_given(test, "test"),
        classes=tuple(classes) if classes is not None else class_names(train),
    )
    return assemble(raw, DataSpec(name, split_seed=split_seed))


def assemble(raw: RawData, spec: DataSpec) -> Data:
    """Subsets, hold-outs, geometry and statistics: what every source shares.

    No label or pixel of one official split influences another (but a training image goes when its
    group is in test): test is read and cut to size by itself, the hold-outs are a function of
    (split_seed, training labels, groups), mean and std are of the training split after holding out.

    Raises OfframpError as `load` does.
    """
    given = Path(spec.split_file).expanduser() if spec.split_file is not None else None
    listed = split_file.read(given) if given else {}
    chosen = split_file.choose(given, listed, raw) if given else choose(raw, spec)
    geometry = geometry_of(raw, spec)
    parts = {id(part): part for part in chosen.parts.values()}  # a split used twice is read once
    taken = {key: take(part, geometry, spec.on_error) for key, part in parts.items()}
    read = {name: taken[id(part)] for name, part in chosen.parts.items()}
    if given:
        split_file.check(given, listed, raw, read)
    splits = {name: one.split for name, one in read.items()}
    mean, std = _normalization(splits["train"].images, spec)
    classes = raw.classes or tuple(map(str, range(int(raw.train.labels.max()) + 1)))
    provenance = {
        **raw.provenance,
        "available": {
            "train": len(raw.train.labels),
            "test": len(raw.test.labels) if raw.test else 0,
        },
        "images": {name: len(split) for name, split in splits.items()},
        "split_seed": spec.split_seed,
        "geometry": asdict(geometry),
        "group_in_another_split": chosen.dropped,
        "skipped": {name: one.skipped for name, one in read.items() if one.skipped},
        "duplicates": duplicates({name: one.digests for name, one in read.items()}),
    }
    return Data(spec.name, classes, **splits, mean=mean, std=std, provenance=provenance)


def _normalization(images: Tensor, spec: DataSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel. images: of the training split."""
    if spec.normalize == "train":
        return statistics(images)
    if spec.normalize != "imagenet":
        hint = nearest(spec.normalize, ("train", "imagenet"))
        raise OfframpError(f"data.normalize cannot be '{spec.normalize}'{hint}")
    if images.is_floating_point() or images.shape[1] != 3:
        raise OfframpError(
            "data.normalize: imagenet is for 8-bit images of 3 channels; set data.channels to 3, or "
            "leave it out"
        )
    return IMAGENET_MEAN, IMAGENET_STD


def geometry_of(raw: RawData, spec: DataSpec) -> Geometry:
    """The source's own geometry with what the study says of it. A size alone keeps the source's
    proportion of crop to image."""
    own = raw.geometry
    resize = spec.resize
    if resize is None and spec.fit == "crop" and own.size and own.resize:
        resize = own.resize if spec.size is None else round(own.resize * spec.size / own.size)
    return Geometry(spec.size or own.size, resize, spec.fit, spec.channels or own.channels)


def duplicates(digests: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many images of a split equal, byte for byte, an earlier one of the same split (`test`), or
    one of another (`test in train`); zeros are left out. digests: of each image, by split."""
    counts = {name: len(found) - len(set(found)) for name, found in digests.items()}
    for name, other in itertools.permutations(digests, 2):
        if SPLITS.index(name) > SPLITS.index(other) and digests[name] is not digests[other]:
            seen = set(digests[other])
            counts[f"{name} in {other}"] = sum(d in seen for d in digests[name])
    return {name: count for name, count in counts.items() if count}


def _arguments(source: Callable[..., Any], spec: DataSpec, default_root: str | None) -> dict[str, Any]:
    """The keyword arguments for a source: its folder, where it takes one, and the options."""
    taken = inspect.signature(source).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    arguments = dict(spec.options)
    for option in arguments:
        if option == "root" or not (anything or option in taken):
            known = [p for p in taken if p != "root"]
            raise OfframpError(
                f"data set '{spec.name}' has no option '{option}'"
                f"{nearest(option, known) or '; remove it'}"
            )
    if "root" in taken:
        root = spec.root if spec.root is not None else default_root
        if root is not None:
            arguments["root"] = Path(root).expanduser()
        elif taken["root"].default is inspect.Parameter.empty:
            fetch = getattr(inspect.getmodule(source), "FETCH", None)
            raise OfframpError(
                f"data set '{spec.name}' needs its folder; "
                + (f"fetch {fetch}, and " if fetch else "")
                + "set data.root, or the environment variable OFFRAMP_DATA to the folder that holds "
                f"'{spec.name}'"
            )
    elif spec.root is not None:
        raise OfframpError(f"data set '{spec.name}' reads no folder; leave data.root out")
    return arguments
