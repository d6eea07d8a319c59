"""From a data set's name to four splits: source, subset, hold-outs, geometry, statistics."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch

from offramp.augment import Augment
from offramp.data import split_file
from offramp.data.dataset import Data, FileSplit
from offramp.data.fetch import FetchedFiles, already_fetched, fetched
from offramp.data.images.dataset_images import DatasetImages
from offramp.data.images.files import StoredImages
from offramp.data.images.geometry import Geometry
from offramp.data.notes import duplicates, remarks, torn
from offramp.data.raw import DeclaredCounts, RawData, RawSplit
from offramp.data.read import LoadedSplit, read_later, read_pixels, streams
from offramp.data.samples import Samples, from_function, read_samples
from offramp.data.sources import DATASETS
from offramp.data.splits import Subset, by_class, choose, with_test_split
from offramp.data_spec import DataSpec, Loader, Normalization
from offramp.errors import OfframpError, UnknownKey, nearest
from offramp.escape import has_controls
from offramp.hashing import digest
from offramp.inputs import Shape
from offramp.labels import several
from offramp.sections import typed
from offramp.units import counted, noun
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

    Args:
        spec: Which data.
        augment: Of the training images.
        loader: `resident` keeps all pixels in memory, `streaming` reads image files whenever they are
            needed, `auto` chooses by size and augmentation. No result depends on it.
        recorded: Where a store's record names the data, and not the user: code of the user's runs only
            if it is what was recorded, and trusted.

    Raises:
        OfframpError: for an unknown name or option, and for whatever is wrong with the files.
    """
    return assemble(read_source(spec, recorded), spec, augment, loader)


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

    Args:
        train: What trains; see `offramp.data.samples.read_samples` for the forms of images and labels.
        validation: Held out of train where it is None.
        calibration: As `validation`.
        test: As `validation`.
        plain: The training samples without their random transform; see `read_samples`.
        classes: Their names; see `read_samples`.
        name: Of the data, for people.
        split_seed: What hold-outs are drawn with.
        normalize: See `DataSpec`.
        shape: What pictures are made to; see `read_samples`.
        augment: Of the training images.

    Raises:
        OfframpError: naming the sample that is wrong, or the split that would be empty.
    """
    spec = DataSpec(name, split_seed=split_seed, normalize=normalize)
    splits = {"train": train, "validation": validation, "calibration": calibration, "test": test}
    return assemble(read_samples(splits, plain, classes, shape), spec, augment)


def of_trained(
    calibration: Samples,
    validation: Samples | None,
    test: Samples | None,
    train: Samples | None,
    *,
    classes: Sequence[str],
    named: Sequence[str] | None = None,
    normalize: Normalization | None = None,
    shape: Shape | None = None,
) -> Data:
    """Data for a network that is trained already: nothing is held out of what it was trained on.
    Arguments are as of `from_dataset`, but for: train, None where it is not at hand; classes, the
    network's, by number, where neither `named` nor the images name them; normalize, None for images that
    are normalized already.

    Raises:
        OfframpError: as `from_dataset`, and for pixels of which nobody says how to normalize them.
    """
    splits = {"train": train, "validation": validation, "calibration": calibration, "test": test}
    raw = read_samples(splits, None, named, shape, trained=len(classes))
    raw = replace(raw, classes=raw.classes or tuple(classes))
    spec = DataSpec("custom", normalize="train" if normalize is None else normalize)
    return _normalized_as_trained(assemble(raw, spec), normalize)


def read_for_trained(
    spec: DataSpec, normalize: Normalization | None, recorded: RecordedCode | None = None
) -> Data:
    """As `of_trained`, of the data that `spec` names; `recorded` is as of `load`.

    It is judged on what it was not trained on: on the source's own validation and test splits, where it
    has any, else on all its images.

    Raises:
        OfframpError: as `of_trained` and `load`.
    """
    raw = read_source(spec, recorded)
    if raw.cut_off:
        raw = with_test_split(raw, replace(spec, test="held-out"))
    pool = raw.calibration or raw.validation or raw.test or raw.train
    validation, test = (None if part is pool else part for part in (raw.validation, raw.test))
    raw = replace(raw, calibration=pool, validation=validation, test=test, pool="calibration")
    return _normalized_as_trained(assemble(raw, spec), normalize)


def _normalized_as_trained(data: Data, normalize: Normalization | None) -> Data:
    """The data, not augmented: that is over. Raises OfframpError where nobody says how pixels are
    normalized."""
    data = replace(data, augment=None)
    pixels = data.calibration.dtype == torch.uint8
    if pixels and (normalize is None or (normalize == "train" and not len(data.train))):
        names = ", ".join(f"'{name}'" for name in NORMALIZED)
        raise OfframpError(
            f"normalize: say how pixels were normalized when the network was trained: {names}, or a "
            "mean and a deviation, one number a channel, as shares of 255; or 'train', with train= too"
        )
    return data


def save_splits(spec: DataSpec, path: str | Path) -> None:
    """Write which image is in which split, with its hash, for `DataSpec.split_file`.

    A file that is there already is replaced.

    Raises:
        OfframpError: for an unknown name or option, and for whatever is wrong with the files.

    Example:
        >>> offramp.save_splits(offramp.DataSpec("digits"), "splits.json")
        >>> again = offramp.DataSpec("digits", split_file="splits.json")
    """
    raw = read_source(spec)
    split_file.save(Path(path), raw, choose(raw, spec))


def read_source(spec: DataSpec, recorded: RecordedCode | None = None) -> RawData:
    """What the source that `spec` names returns; no image that is lazy is read yet. recorded: see
    `load`.

    Raises:
        OfframpError: as `load` does.
    """
    files: FetchedFiles | None = None
    if spec.url is None and spec.sha256 is not None:
        raise OfframpError("data.sha256 needs data.url; give both, or leave data.sha256 out")
    if spec.url is not None:
        folder = spec.root or shared_folder(spec.name)
        if folder is None or not Path(folder).expanduser().exists():
            files = fetched(spec)
            spec = replace(spec, root=str(files.folder))
    raw = with_test_split(_read_source(spec, recorded), spec)
    if files is None:
        return raw
    provenance = {**raw.provenance, "url": spec.url, "url_sha256": files.sha256}
    if spec.sha256 is None:  # no hash holds the files to be the same
        pin = f"set data.sha256: {files.sha256} to have the same bytes anywhere"
        provenance["remarks"] = [*provenance.get("remarks", ()), f"fetched from {spec.url}; {pin}"]
    return replace(raw, provenance=provenance)


def _read_source(spec: DataSpec, recorded: RecordedCode | None) -> RawData:
    if is_user_code(spec.name):
        own = load_code(spec.name, "data.name", recorded)
        return from_function(spec.name, own, _arguments(own.function, spec, None, None))
    if spec.name not in DATASETS:
        if Path(spec.name).is_dir():
            raise OfframpError(f"unknown data set '{spec.name}'; a folder is folder:{spec.name}")
        raise OfframpError(
            f"unknown data set '{spec.name}'{nearest(spec.name, DATASETS)} "
            "(your own: path/to/file.py:function)"
        )
    source = DATASETS[spec.name]
    arguments = _arguments(source.read, spec, shared_folder(spec.name), source.fetch)
    hints = get_type_hints(source.read)
    for option, value in spec.options:
        arguments[option] = typed(hints[option], value, f"data.{option}")
    return source.read(**arguments)


def _arguments(
    read: Callable[..., Any], spec: DataSpec, shared: str | None, fetch: str | None
) -> dict[str, Any]:
    """The keyword arguments for a source: its folder, where it takes one, and the options.

    shared: the folder where none is named.  fetch: what to put there.
    """
    parameters = inspect.signature(read).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    arguments = dict(spec.options)
    for option in arguments:
        if option == "root" or not (anything or option in parameters):
            options = [p for p in parameters if p != "root"]
            raise UnknownKey(
                f"data set '{spec.name}' has no option '{option}'"
                f"{nearest(option, options) or '; remove it'}"
            )
    if "root" not in parameters:
        if spec.root is not None:
            raise OfframpError(f"data set '{spec.name}' reads no folder; leave data.root out")
        return arguments
    needed = parameters["root"].default is inspect.Parameter.empty
    root = shared if spec.root is None and needed else spec.root
    if root is not None:
        arguments["root"] = Path(root).expanduser()
    elif needed:
        raise OfframpError(
            f"data set '{spec.name}' needs its folder; "
            + (f"fetch {fetch}, and " if fetch else "")
            + "set data.root, or the environment variable OFFRAMP_DATA to the folder that holds "
            f"'{spec.name}'"
        )
    return arguments


def shared_folder(name: str) -> str | None:
    """Where this machine keeps a data set; None where OFFRAMP_DATA says nothing."""
    shared = os.environ.get("OFFRAMP_DATA")
    return str(Path(shared) / name) if shared else None


def assemble(
    raw: RawData, spec: DataSpec, augment: Augment | None = None, loader: Loader = "auto"
) -> Data:
    """Subsets, hold-outs, geometry and statistics: what every source shares.

    No label or pixel of one official split influences another (but a training image goes when its
    group is in test): test is read and cut to size by itself, the hold-outs are a function of
    (split_seed, training labels, groups), mean and std are of the training split after holding out
    unless `spec` gives others.

    Args:
        raw: What a source returned.
        spec: How it is split, and what becomes of its images.
        augment: Of the training images.
        loader: See `load`.

    Raises:
        OfframpError: as `load` does.
    """
    classes = names_of_classes(raw, spec.name)
    file = split_file.named_by(spec)
    chosen = choose(raw, spec) if file is None else file.choose(raw)
    geometry = geometry_of(raw, spec)
    parts = {id(part): part for part in chosen.parts.values()}  # a split used twice is read once
    _check_loader(loader, parts.values(), spec)
    loaded = {
        key: _read(part, geometry, spec, loader, augment, part is chosen.parts["train"])
        for key, part in parts.items()
        if len(part.rows)
    }
    if id(unknown := chosen.parts["train"]) not in loaded:
        loaded[id(unknown)] = _unread(unknown, loaded[id(chosen.parts["calibration"])])
    read = {name: loaded[id(part)] for name, part in chosen.parts.items()}
    if file is not None:
        file.check(raw, read)
    images = read["train"].part.source.images
    if isinstance(images, DatasetImages) and images.transformed is not None:
        views = [images.views[row] for row in read["train"].part.rows.tolist()]
        augment = replace(augment or Augment(), own=digest(views))
    splits = {name: part.split for name, part in read.items()}
    counts = by_class({name: part.part for name, part in read.items()}, len(classes))
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
        "skipped": {name: part.skipped for name, part in read.items() if part.skipped},
        "sources": {name: digest(part.digests) for name, part in read.items()},
        "duplicates": duplicates({name: part.digests for name, part in read.items()}),
    }
    data = Data(spec.name, classes, **splits, mean=mean, std=std, provenance=provenance, augment=augment)
    sizes = provenance["images"] if data.several else None
    # Now that every label is known to be of a class.
    provenance["remarks"] += remarks(counts, classes, sizes, noun(data.shape)) + _torn(raw, read, data)
    return data


def _torn(raw: RawData, read: Mapping[str, LoadedSplit], data: Data) -> list[str]:
    """That equal examples have unlike labels: how many, and which, for two of them."""
    if not data.provenance["duplicates"]:
        return []
    labels = {name: list(map(str, part.part.labels.tolist())) for name, part in read.items()}
    count, example = torn({name: part.digests for name, part in read.items()}, labels)
    words = []
    for name, place in example:
        part, label = read[name].part, read[name].part.labels[place]
        row, images = int(part.rows[place]), part.source.images
        pool = next((each for each, split in raw.splits.items() if split is part.source), name)
        title = images.name(row) if isinstance(images, StoredImages) else f"row {row} of {pool}"
        own = label.nonzero().flatten().tolist() if data.several else [int(label)]
        words.append(f"{title} ({', '.join(data.classes[k] for k in own) or 'no label'})")
    if not words:
        return []
    what = f"{count:,} {noun(data.shape)}s are equal to others and have unlike labels, such as"
    return [f"{what} {' and '.join(words)}: nothing learns to answer all right"]


def _read(
    part: Subset,
    geometry: Geometry,
    spec: DataSpec,
    loader: Loader,
    augment: Augment | None,
    trains: bool,
) -> LoadedSplit:
    source = part.source.images
    dataset = source if isinstance(source, DatasetImages) else None
    # Splits that are held out of train have its source, but are never transformed or cut at random.
    transformed = trains and dataset is not None and dataset.transformed is not None
    boxes = augment is not None and augment.resized_crop is not None and geometry.size is not None
    # Random boxes are cut from the images as they are stored, where those can be had.
    pictures = isinstance(source, StoredImages) if dataset is None else dataset.pictures
    whole = trains and boxes and pictures
    streamed = streams(part, geometry, loader, whole)
    if transformed or whole or streamed:
        in_memory = not (transformed or streamed)
        return read_later(part, geometry, spec.on_error, whole, in_memory)
    return read_pixels(part, geometry, spec.on_error)


def _unread(part: Subset, like: LoadedSplit) -> LoadedSplit:
    """A split without images, of the kind of another one's."""
    mark = digest(["no images", list(like.split.shape)])
    absent: Any = _AbsentImages("train")
    split = FileSplit(
        absent, part.rows, Geometry(), part.labels, like.split.shape, mark, dtype=like.split.dtype
    )
    return LoadedSplit(split, part, [], [], like.mean, like.std)


def names_of_classes(raw: RawData, name: str) -> tuple[str, ...]:
    """Of the source, or the numbers of the training labels. Raises OfframpError where those are too many
    to be classes, and for a name that no record can hold."""
    labels = raw.train.labels
    most = labels.shape[1] if several(labels) else max(len(raw.classes), int(labels.max()) + 1)
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
    if loader == "streaming" and not any(isinstance(p.source.images, StoredImages) for p in parts):
        raise OfframpError(
            f"data set '{spec.name}' is neither image files nor a Dataset, so it cannot be streamed; "
            "leave execution.loader out"
        )


def _normalization(train: LoadedSplit, spec: DataSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel."""
    if spec.normalize == "train":
        return train.mean, train.std
    named = isinstance(spec.normalize, str)
    mean, std = NORMALIZED[spec.normalize] if isinstance(spec.normalize, str) else spec.normalize
    means = f"{spec.normalize} is" if named else "these are"
    if named and len({*mean}) == len({*std}) == 1:  # the same of any channel
        mean, std = mean[:1] * len(train.mean), std[:1] * len(train.mean)
    if train.split.dtype != torch.uint8:
        kinds = "floats, taken as normalized" if train.split.dtype.is_floating_point else "no images"
        raise OfframpError(f"normalize: {means} for 8-bit images, and these are {kinds}; leave it out")
    if {len(mean), len(std)} != {len(train.mean)}:
        raise OfframpError(
            f"normalize: {means} for images of {counted(len(mean), 'channel')}, and these have "
            f"{len(train.mean)}; give a mean and a deviation for each, or set a study's data.channels"
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


def declared_counts(name: str, options: Mapping[str, Any]) -> DeclaredCounts | None:
    """What is known of a data set read with some options, wherever it is; None where nothing is."""
    return DATASETS[name].counts(options) if name in DATASETS else None


def missing(spec: DataSpec) -> str | None:
    """Why `spec` can be planned by declared counts only: its folder is not there.

    None where it is, and where no counts are declared for what it asks.
    """
    if spec.split_file is not None or declared_counts(spec.name, dict(spec.options)) is None:
        return None
    root = spec.root or shared_folder(spec.name)
    if root is not None and Path(root).expanduser().is_dir():
        return None
    if spec.url is not None:
        return None if already_fetched(spec) is not None else f"{spec.url} is not fetched yet"
    if root is None:
        return "no folder is given (data.root, --data-root or OFFRAMP_DATA)"
    return f"there is no folder {root}"


@dataclass(frozen=True)
class _AbsentImages:
    """Images that are not here: they can be counted, and that is all."""

    name: str
    ids: tuple[str, ...] = ()

    def open(self, row: int) -> Any:
        raise OfframpError(f"image {row} of '{self.name}' is not here; this plan is for looking only")


def declared_data(spec: DataSpec, augment: Augment | None = None) -> Data:
    """Splits of the declared sizes, with labels and without images. Their digests stand for no data.
    Raises OfframpError for counts that cannot be had."""
    counts = declared_counts(spec.name, dict(spec.options)) or declared_counts(spec.name, {})
    assert counts is not None
    labels = [torch.repeat_interleave(torch.tensor(n)) for n in (counts.train, counts.test)]
    train, test = (RawSplit(numbers, numbers) for numbers in labels)
    raw = RawData(train, test, tuple(map(str, range(len(counts.train)))))
    channels, height, width = counts.shape
    shape = (spec.channels or channels, spec.size or height, spec.size or width)
    absent: Any = _AbsentImages(spec.name)
    parts = choose(raw, spec).parts
    once: dict[int, Any] = {}
    for name, part in parts.items():
        mark = digest(["declared", spec.name, name, len(part.rows), list(shape)])
        split = FileSplit(absent, part.rows, Geometry(), part.labels, shape, mark)
        once.setdefault(id(part), split)
    splits = {name: once[id(part)] for name, part in parts.items()}
    zeros, ones = (0.0,) * shape[0], (1.0,) * shape[0]
    return Data(spec.name, raw.classes, **splits, mean=zeros, std=ones, augment=augment)
