"""From a data set's name to four splits: subset, hold-outs, statistics, shared by all sources."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch

from offramp.augment import Augment
from offramp.data import split_file
from offramp.data.dataset import Data
from offramp.data.fetch import Fetched, fetched
from offramp.data.images.files import Opened
from offramp.data.images.geometry import Geometry
from offramp.data.images.own import DatasetImages
from offramp.data.raw import RawData
from offramp.data.read import LoadedSplit, streams, take, take_files
from offramp.data.remarks import remarks
from offramp.data.samples import Samples, from_function, read_samples
from offramp.data.sources import DATASETS
from offramp.data.splits import Subset, as_asked, by_class, choose, left_out
from offramp.data_spec import SPLITS, DataSpec, Loader, Normalization
from offramp.errors import OfframpError, nearest
from offramp.escape import has_controls
from offramp.hashing import digest
from offramp.inputs import Shape
from offramp.sections import typed
from offramp.units import counted
from offramp.usercode import RecordedCode, is_user_code
from offramp.usercode import load as load_code

MOST_CLASSES = 100_000
NORMALIZED = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and deviation of each channel that public weights were trained with."""


def load(
    spec: DataSpec,
    augment: Augment | None = None,
    loader: Loader = "auto",
    recorded: RecordedCode | None = None,
) -> Data:
    """The data set that `spec` names, on the CPU.

    augment: of the training images.  loader: `resident` keeps all pixels in memory, `streaming` reads
    image files whenever they are needed, `auto` chooses by size and augmentation. No result depends on
    the loader.  recorded: where a store's record names the data, and not the user; code of the user's
    runs only if it is what was recorded, and trusted.

    Raises OfframpError for an unknown name or option, and for whatever is wrong with the files.
    """
    return assemble(read_source(spec, recorded), spec, augment, loader)


def read_source(spec: DataSpec, recorded: RecordedCode | None = None) -> RawData:
    """What the source that `spec` names returns; no image that is lazy is read yet. recorded: see
    `load`.

    Raises OfframpError as `load` does.
    """
    spec, got = _at_hand(spec)
    return _with_origin(_read(spec, recorded), spec, got)


def _at_hand(spec: DataSpec) -> tuple[DataSpec, Fetched | None]:
    """The spec with the folder of its files, and what was fetched for it; None where nothing was."""
    if spec.url is None:
        if spec.sha256 is not None:
            raise OfframpError("data.sha256 needs data.url; give both, or leave data.sha256 out")
        return spec, None
    folder = spec.root or shared_folder(spec.name)
    if folder is not None and Path(folder).expanduser().exists():
        return spec, None
    got = fetched(spec)
    return replace(spec, root=str(got.files)), got


def _with_origin(raw: RawData, spec: DataSpec, got: Fetched | None) -> RawData:
    """The data with the address of its files, and a remark where no hash holds them to be the same."""
    if got is None:
        return raw
    said = {**raw.provenance, "url": spec.url, "url_sha256": got.sha256}
    if spec.sha256 is None:
        loose = f"fetched from {spec.url}; set data.sha256: {got.sha256} to have the same bytes anywhere"
        said["remarks"] = [*said.get("remarks", ()), loose]
    return replace(raw, provenance=said)


def shared_folder(name: str) -> str | None:
    """Where this machine keeps a data set; None where OFFRAMP_DATA says nothing."""
    shared = os.environ.get("OFFRAMP_DATA")
    return str(Path(shared) / name) if shared else None


def _read(spec: DataSpec, recorded: RecordedCode | None) -> RawData:
    if is_user_code(spec.name):
        own = load_code(spec.name, "data.name", recorded)
        return as_asked(from_function(spec.name, own, _arguments(own.function, spec, None)), spec)
    if spec.name not in DATASETS:
        raise OfframpError(
            f"unknown data set '{spec.name}'{nearest(spec.name, DATASETS)} "
            "(your own: path/to/file.py:function)"
        )
    source = DATASETS[spec.name]
    arguments = _arguments(source, spec, shared_folder(spec.name))
    hints = get_type_hints(source)
    for option, value in spec.options:
        arguments[option] = typed(hints[option], value, f"data.{option}")
    return as_asked(source(**arguments), spec)


def save_splits(spec: DataSpec, path: str | Path) -> None:
    """Write which image is in which split, with its hash, for `DataSpec.split_file`. A file that is
    there already is replaced.

    Raises OfframpError for an unknown name or option, and for whatever is wrong with the files.

    >>> offramp.save_splits(offramp.DataSpec("digits"), "splits.json")
    >>> again = offramp.DataSpec("digits", split_file="splits.json")
    """
    raw = read_source(spec)
    split_file.save(Path(path), raw, choose(raw, spec))


def from_dataset(
    train: Samples,
    validation: Samples | None = None,
    calibration: Samples | None = None,
    test: Samples | None = None,
    *,
    plain: Samples | None = None,
    classes: Sequence[str] | None = None,
    name: str = "custom",
    split_seed: int = 0,
    normalize: Normalization = "train",
    shape: Shape | None = None,
    augment: Augment | None = None,
) -> Data:
    """Data from Datasets of (image, label), or pairs of arrays (images, labels).

    A split that is not given is held out of train. normalize: see `DataSpec`. See
    `offramp.data.samples.read_samples` for the forms of images and labels, `plain`, `classes` and
    `shape`.

    Raises OfframpError naming the sample that is wrong, or the split that would be empty.
    """
    spec = DataSpec(name, split_seed=split_seed, normalize=normalize)
    splits = {"train": train, "validation": validation, "calibration": calibration, "test": test}
    return assemble(read_samples(splits, plain, classes, shape), spec, augment)


def assemble(
    raw: RawData, spec: DataSpec, augment: Augment | None = None, loader: Loader = "auto"
) -> Data:
    """Subsets, hold-outs, geometry and statistics: what every source shares.

    No label or pixel of one official split influences another (but a training image goes when its
    group is in test): test is read and cut to size by itself, the hold-outs are a function of
    (split_seed, training labels, groups), mean and std are of the training split after holding out
    unless `spec` gives others.

    Raises OfframpError as `load` does.
    """
    classes = _class_names(raw, spec.name)
    given = Path(spec.split_file).expanduser() if spec.split_file is not None else None
    listed = split_file.read(given) if given else {}
    chosen = split_file.choose(given, listed, raw) if given else choose(raw, spec)
    geometry = geometry_of(raw, spec)
    parts = {id(part): part for part in chosen.parts.values()}  # a split used twice is read once
    _check_loader(loader, parts.values(), spec)
    taken = {}
    for key, part in parts.items():
        source, trains = part.source.images, part is chosen.parts["train"]
        # Random boxes are cut from the images as they are stored, where those can be had.
        whole = (
            trains
            and augment is not None
            and augment.resized_crop is not None
            and geometry.size is not None
            and (source.pictures if isinstance(source, DatasetImages) else isinstance(source, Opened))
        )
        own = (
            source if isinstance(source, DatasetImages) and source.drawn is not None and trains else None
        )
        if own and own.texts:
            raise OfframpError("texts take no random transform; leave `plain` out")
        if own or whole or streams(part, geometry, loader, whole):
            hold = not (own or streams(part, geometry, loader, whole))
            taken[key] = take_files(part, geometry, spec.on_error, whole, hold)
        else:
            taken[key] = take(part, geometry, spec.on_error)
        if own:
            views = [own.views[row] for row in taken[key].part.rows.tolist()]
            augment = replace(augment or Augment(), own=digest(views))
    read = {name: taken[id(part)] for name, part in chosen.parts.items()}
    if given:
        split_file.check(given, listed, raw, read)
    splits = {name: one.split for name, one in read.items()}
    counts = by_class({name: one.part for name, one in read.items()}, len(classes))
    mean, std = _normalization(read["train"], spec)
    provenance = {
        **raw.provenance,
        "available": {"train": len(raw.train.labels), "test": len(raw.test.labels) if raw.test else 0},
        "images": {name: len(split) for name, split in splits.items()},
        "split_seed": spec.draw,
        "by_class": counts,
        "geometry": asdict(geometry),
        "remarks": [*raw.provenance.get("remarks", ()), *chosen.remarks],
        "group_in_another_split": chosen.dropped,
        "skipped": {name: one.skipped for name, one in read.items() if one.skipped},
        "duplicates": duplicates({name: one.digests for name, one in read.items()}),
    }
    data = Data(spec.name, classes, **splits, mean=mean, std=std, provenance=provenance, augment=augment)
    provenance["remarks"] += remarks(counts, classes)  # now that every label is known to be of a class
    return data


def _class_names(raw: RawData, name: str) -> tuple[str, ...]:
    """Of the source, or the numbers of the training labels. Raises OfframpError where those are too many
    to be classes, and for a name that no record can hold."""
    most = max(len(raw.classes), int(raw.train.labels.max()) + 1)
    if most > MOST_CLASSES:
        raise OfframpError(
            f"data set '{name}' has {most:,} classes, by its largest label or its names; give labels of "
            f"at most {MOST_CLASSES:,} classes"
        )
    for label in raw.classes:
        if not label or has_controls(label):
            raise OfframpError(
                f"data set '{name}' has a class {label!r}; give every class a name without control "
                "characters"
            )
    return raw.classes or tuple(map(str, range(most)))


def _check_loader(loader: Loader, parts: Iterable[Subset], spec: DataSpec) -> None:
    if loader not in get_args(Loader):
        raise OfframpError(f"execution.loader cannot be '{loader}'{nearest(loader, get_args(Loader))}")
    if loader == "streaming" and not any(isinstance(p.source.images, Opened) for p in parts):
        raise OfframpError(
            f"data set '{spec.name}' is neither image files nor a Dataset, so it cannot be streamed; "
            "leave execution.loader out"
        )


def _normalization(train: LoadedSplit, spec: DataSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel."""
    asked = spec.normalize
    if asked == "train":
        return train.mean, train.std
    mean, std = NORMALIZED[asked] if isinstance(asked, str) else asked
    means = f"{asked} is" if isinstance(asked, str) else "these are"
    if train.split.dtype != torch.uint8:
        kinds = "floats, taken as normalized" if train.split.dtype.is_floating_point else "no images"
        raise OfframpError(f"normalize: {means} for 8-bit images, and these are {kinds}; leave it out")
    if {len(mean), len(std)} != {len(train.mean)}:
        raise OfframpError(
            f"normalize: {means} for images of {counted(len(mean), 'channel')}, and these have "
            f"{len(train.mean)}; leave it out, or set a study's data.channels"
        )
    return mean, std


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


def notes(provenance: Mapping[str, Any]) -> list[str]:
    """What a person should know of data that was read, a line each: splits that are small or unlike,
    images that were left out, skipped, or are there twice. provenance: of `Data`."""
    found = [f"{line}." for line in left_out(provenance.get("group_in_another_split", {}))]
    for split, names in provenance.get("skipped", {}).items():
        found.append(f"{counted(len(names), 'image')} of {split} skipped as damaged, {names[0]} first.")
    for where, count in provenance.get("duplicates", {}).items():
        split, _, other = where.partition(" in ")
        twin = f"one of {other}" if other else "another of it"
        found.append(f"{counted(count, 'image')} of {split} equal to {twin}, byte for byte.")
    return [*found, *(f"{line}." for line in provenance.get("remarks", ()))]


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
        needed = taken["root"].default is inspect.Parameter.empty
        root = default_root if spec.root is None and needed else spec.root
        if root is not None:
            arguments["root"] = Path(root).expanduser()
        elif needed:
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
