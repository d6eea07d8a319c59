"""A user's own data: PyTorch's Datasets, pairs of arrays, and functions that return them."""

from __future__ import annotations

import itertools
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from offramp.augment import View
from offramp.data.images.dataset_images import (
    DatasetImages,
    SampleRows,
    SampleType,
    Spool,
    as_pixels,
    as_sample,
    plain_seed,
    read_sample,
    sample_failed,
    type_of,
    view_seed,
)
from offramp.data.images.files import StoredImages, pixel_digest
from offramp.data.images.geometry import Geometry
from offramp.data.progress import LoggedProgress
from offramp.data.raw import REGRESSION, ImageRows, RawData, RawSplit
from offramp.data_spec import SPLITS
from offramp.device import seeded_on_cpu
from offramp.errors import OfframpError, kind_of, nearest
from offramp.hashing import derive
from offramp.inputs import Shape, check_numbers
from offramp.units import counted
from offramp.usercode import LoadedFunction, file_of, running


class SizedRows(SampleRows, Protocol):
    """Rows that say how many they are."""

    def __len__(self) -> int: ...


Samples = SizedRows | Dataset[Any]
"""A Dataset of (image, label) that has a length, which not every type of one says; or a pair of arrays
(images, labels)."""

IN_MEMORY = 2**28  # bytes of a Dataset's images that stay in memory once they were read
PROBES = 64  # images of a split that are read twice, to find random transforms
FIRST = View(0, 0)
FLOATS = (torch.float32, torch.float64, torch.float16)


def read_samples(
    splits: Mapping[str, Samples | None],
    plain: Samples | None = None,
    classes: Sequence[str] | None = None,
    shape: Shape | None = None,
    trained: int = 0,
) -> RawData:
    """The splits of a user's own data.

    A split is a Dataset of (image, label) that has a length, map-style or iterable; or a pair of arrays
    (images [N, C, H, W], [N, H, W, C] or [N, H, W]; labels [N] or [N, C]). An image is
    a PIL image, a tensor [C, H, W] or [H, W], or an array [H, W, C], [C, H, W] or [H, W]; uint8, or
    floating point taken as already normalized. Labels: see `numbered`.

    Each sample is read once, and stays in memory where all are small; else it is read again when it is
    needed (an iterable's goes to a temporary file). Python's, NumPy's and torch's generators are seeded
    for it. A random transform is for training images alone; a few samples are read twice to find one.

    Args:
        splits: By name, `train` among them, or `calibration` if `trained`; None stands for any other
            that is not there.
        plain: The training samples without their random transform, in the same order: what is
            evaluated, held out, and counted.
        classes: Names; by default those that a Dataset gives itself (`train.classes`).
        shape: (C, H, W) that a Dataset's pictures are made to, all or a few of them.
        trained: How many classes a network has that is trained already: what lacks is held out of
            calibration. 0 for one that is yet to train.

    Raises:
        OfframpError: naming the sample that is wrong, and for a random transform where none can be.
    """
    if isinstance(classes, str):
        raise OfframpError(f"classes is the text {classes!r}; give a list of names")
    present = {name: samples for name, samples in splits.items() if samples is not None}
    pool: Literal["train", "calibration"] = "calibration" if trained else "train"
    if pool not in present:
        raise OfframpError(f"there is no {pool} data; give a Dataset of (image, label), or two arrays")
    first = "train" if "train" in present else pool
    read = {name: _read(samples, name) for name, samples in present.items() if name != "train"}
    if "train" in present:
        read = {"train": _read_train(present["train"], plain), **read}
    names = class_names(present[first]) if classes is None else tuple(map(str, classes))
    own_labels = {name: labels for name, (_, labels) in read.items()}
    labels, names, remark = numbered(own_labels, names, trained)
    raw = {name: RawSplit(images, labels[name]) for name, (images, _) in read.items()}
    types = [t for s in raw.values() if isinstance(s.images, DatasetImages) for t in s.images.types]
    geometry = _geometry(set(types), shape)
    remarks = [remark] if remark else []
    if geometry.size is not None:
        remarks.append(_scaled(types, geometry.size))
    if isinstance(own := raw[first].images, DatasetImages) and own.transformed is not None:
        remarks.append("training images are drawn anew each epoch by the data's own random transform")
    return RawData(
        train=raw[first],
        test=raw.get("test"),
        classes=names,
        validation=raw.get("validation"),
        calibration=raw.get("calibration"),
        provenance={"remarks": remarks} if remarks else {},
        geometry=geometry,
        pool=pool,
    )


def from_function(name: str, own: LoadedFunction, arguments: Mapping[str, Any]) -> RawData:
    """What a user's function returns, as RawData.

    It may return RawData; a mapping with `train`, and optionally `plain`, `test`, `validation`,
    `calibration` (as `read_samples` takes them) and `classes` (names); a tuple (train, test); or one
    pair of arrays.

    Raises:
        OfframpError: when the function fails or returns something else.
    """
    with running(name):
        data = own.function(**arguments)
        if isinstance(data, tuple) and len(data) == 2:
            arrays = all(isinstance(part, (Tensor, np.ndarray)) for part in data)
            data = {"train": data} if arrays else dict(zip(("train", "test"), data, strict=True))
        raw = data if isinstance(data, RawData) else _from_mapping(name, data)
    source = {"file": str(file_of(name)), "sha256": own.sha256}
    return replace(raw, provenance={**raw.provenance, "source": source})


def class_names(samples: Any) -> tuple[str, ...]:
    """The names that a Dataset, or the one that it is a Subset of, gives itself, as torchvision's do;
    empty where it has none."""
    names = getattr(samples, "classes", None)
    if isinstance(names, (list, tuple)):
        return tuple(map(str, names))
    inner = getattr(samples, "dataset", None)
    return () if inner is None else class_names(inner)


def numbered(
    labels: Mapping[str, Sequence[Any]], classes: Sequence[str] = (), count: int = 0
) -> tuple[dict[str, Tensor], tuple[str, ...], str | None]:
    """Labels as people give them, made into class numbers.

    Numbers count from 0. Those of 1 to C count from 1: where there are C classes, or where nobody says
    how many and training images show each of them. Names are numbered as in `classes`, else in their
    order in the alphabet. A vector is one-hot; but where any has not exactly one 1, or a label is a list
    of names, each image has several labels, or none.

    Args:
        labels: Of each split, `train` among them, or else one that stands for it first.
        classes: Names, where they are known.
        count: How many there are, where that alone is known; 0: it is not.

    Returns:
        Numbers [N] int64, or of several labels [N, C] uint8, by split; the names of classes, empty where
        numbers are all there is; and what to know of it, if there is anything.

    Raises:
        OfframpError: naming the sample, for what is no label, and for a name that is not a class.

    Example:
        >>> numbered({"train": ["dog", "cat", "dog"]})[0]["train"].tolist()
        [1, 0, 1]
        >>> numbered({"train": [["dog"], ["cat", "dog"], []]})[0]["train"].tolist()
        [[0, 1], [1, 1], [0, 0]]
    """
    if any(_is_set(label) for own in labels.values() for label in own):
        return _sets(labels, tuple(classes))
    plain = {split: [_label(x, split, i) for i, x in enumerate(xs)] for split, xs in labels.items()}
    names, remark = tuple(classes), None
    first = "train" if "train" in plain else next(iter(plain))
    if isinstance(plain[first][0], str):
        _check_kind(first, plain[first], str, "among names; give names only")
        names = names or tuple(sorted(set(map(str, plain[first]))))
        places: dict[int | str, int] = {name: place for place, name in enumerate(names)}
        for split, own in plain.items():
            for i, label in enumerate(own):
                if label not in places:
                    raise OfframpError(
                        f"{split} sample {i} has the label {label!r}, which is not a class"
                        f"{nearest(str(label), names)}"
                    )
        numbers = {split: [places[label] for label in own] for split, own in plain.items()}
    else:
        for split, own in plain.items():
            _check_kind(split, own, int, "among numbers; give numbers, or names, only")
        numbers = {split: list(map(int, own)) for split, own in plain.items()}
        every = [number for own in numbers.values() for number in own]
        least, most = min(every), max(every)
        if not -(2**63) <= least <= most < 2**63:
            raise OfframpError(f"labels go from {least} to {most}; give class numbers from 0 or from 1")
        from_one = (len(names) or count or len(set(numbers[first]))) == most  # of 1 to `most`: all
        if least == 1 and most > 1 and from_one:
            numbers = {split: [number - 1 for number in own] for split, own in numbers.items()}
            names = names or tuple(map(str, range(1, most + 1)))
            remark = f"labels 1 to {most} are taken as classes 0 to {most - 1}"
    tensors = {split: torch.tensor(own, dtype=torch.int64) for split, own in numbers.items()}
    return tensors, names, remark


def _is_set(label: Any) -> bool:
    """Whether a label is a list of names, or a vector of 0 and 1 with not exactly one 1."""
    if isinstance(label, (set, frozenset)):
        return True
    if not isinstance(label, (list, tuple, np.ndarray, Tensor)) or len(np.shape(label)) > 1:
        return False
    if isinstance(label, (list, tuple)) and (not len(label) or isinstance(label[0], str)):
        return True
    return len(np.shape(label)) == 1 and len(label) > 1 and _is_marks(label) and sum(label) != 1


def _is_marks(label: Any) -> bool:
    return bool(np.isin(np.asarray(label), (0, 1)).all())


def _sets(
    labels: Mapping[str, Sequence[Any]], names: tuple[str, ...]
) -> tuple[dict[str, Tensor], tuple[str, ...], None]:
    """As `numbered`, of several labels an image."""
    words = [
        name
        for own in labels.values()
        for label in own
        if isinstance(label, (list, tuple, set, frozenset))
        for name in label
        if isinstance(name, str)
    ]
    names = names or tuple(sorted(set(words)))
    first = next(label for own in labels.values() for label in own if _is_set(label))
    width, matrices = len(names) if words else len(first), {}
    if not width:
        raise OfframpError("no sample has a label; give those that do a list of names, or of 0 and 1")
    for split, own in labels.items():
        rows = np.zeros((len(own), width), np.uint8)
        for i, label in enumerate(own):
            where = f"{split} sample {i} has the label {label!r}"
            if words and isinstance(label, (list, tuple, set, frozenset)):
                if unknown := [name for name in label if name not in names]:
                    raise OfframpError(f"{where}, and {unknown[0]!r} is not a class of {len(names)}")
                rows[i, [names.index(name) for name in label]] = 1
            elif not words and np.shape(label) == (width,) and _is_marks(label):
                rows[i] = np.asarray(label)
            else:
                form = "the names of its labels" if words else f"{width} numbers, 0 or 1"
                raise OfframpError(f"{where}, where others have several; give each a list: {form}")
        matrices[split] = torch.from_numpy(rows)
    return matrices, names, None


def _check_kind(split: str, labels: Sequence[int | str], kind: type, fault: str) -> None:
    for i, label in enumerate(labels):
        if not isinstance(label, kind):
            raise OfframpError(f"{split} sample {i} has the label {label!r} {fault}")


def _label(label: Any, split: str, i: int) -> int | str:
    """A label as a number or a name."""
    if isinstance(label, str):
        return str(label)
    try:
        return operator.index(label)
    except (TypeError, ValueError, RuntimeError):
        pass
    if isinstance(label, (list, tuple, np.ndarray, Tensor)) and len(np.shape(label)) == 1:
        vector = np.asarray(label)
        if len(vector) == 1 and vector.dtype.kind in "iu":
            return int(vector[0])
        if vector.dtype.kind in "biuf" and sorted(vector) == [0] * (len(vector) - 1) + [1]:
            return int(vector.argmax())
        raise OfframpError(
            f"{split} sample {i} has the label {vector.tolist()}, which is not one class; give one 1 "
            "among zeros, or a class number"
        )
    measured = isinstance(label, (float, np.floating)) or getattr(label, "dtype", None) in FLOATS
    raise OfframpError(
        f"{split} sample {i} has the label {label!r}; give an integer class number, a name, or one-hot"
        + (REGRESSION if measured else "")
    )


def _from_mapping(name: str, data: Any) -> RawData:
    if not isinstance(data, Mapping) or data.get("train") is None:
        raise OfframpError(
            f"{name} returned {kind_of(data)}; return RawData, a tuple (train, test), or a "
            "mapping with at least 'train'"
        )
    keys = (*SPLITS, "plain", "classes")
    for key in data:
        if key not in keys:
            raise OfframpError(f"{name} returned the key {key!r}{nearest(str(key), keys)}")
    splits = {key: samples for key, samples in data.items() if key in SPLITS}
    return read_samples(splits, data.get("plain"), data.get("classes"))


ReadSplit = tuple[ImageRows | StoredImages, Sequence[Any]]  # images, and labels as they came


def _read_train(samples: Samples, plain: Samples | None) -> ReadSplit:
    if plain is None:
        return _read(samples, "train")
    if isinstance(samples, tuple) or not _map_style(samples) or not _map_style(plain):
        raise OfframpError("`plain` needs map-style Datasets, as itself and as train; leave it out")
    images, labels = _read(plain, "plain")
    assert isinstance(images, DatasetImages)
    if (total := _length(samples, "train")) != len(images):
        raise OfframpError(
            f"train holds {total} samples, plain {len(images)}; give the same ones to both"
        )
    views = []
    images = replace(images, split="train")
    for row in LoggedProgress("reading train samples", len(images)).over(range(len(images))):
        name = images.name(row)
        image, label = read_sample(samples, row, view_seed(FIRST, row), name)
        drawn, same = numbered({"train": [label, labels[row]]})[0]["train"]
        if not torch.equal(drawn, same):
            raise OfframpError(
                f"{name} has the label {label!r}, in plain {labels[row]!r}; give both the same samples"
            )
        views.append(pixel_digest(image))
    for row in _probes(len(images)):
        again, _ = read_sample(samples, row, view_seed(FIRST, row), images.name(row))
        if pixel_digest(again) != views[row]:
            raise _unseeded(images.name(row))
    return replace(images, transformed=samples, views=tuple(views)), labels


def _read(samples: Samples, split: str) -> ReadSplit:
    if isinstance(samples, tuple):
        return _read_arrays(samples, split)
    if isinstance(samples, DataLoader):
        raise OfframpError(f"the {split} data is a DataLoader; give its dataset: loader.dataset")
    if isinstance(samples, str | os.PathLike):
        raise OfframpError(
            f"the {split} data is {kind_of(samples)}; give a Dataset of (image, label), such as "
            "torchvision's ImageFolder, or a pair of arrays"
        )
    total, map_style = _length(samples, split), _map_style(samples)
    passed = _by_rows(samples, split, total) if map_style else _in_order(samples, split, total, 0)
    memory: list[Tensor] | Spool | None = [] if map_style else Spool()
    types: list[SampleType] = []
    shas: list[str] = []
    labels: list[Any] = []
    size = 0
    for image, label in LoggedProgress(f"reading {split} samples", total).over(passed):
        types.append(type_of(image))
        shas.append(pixel_digest(image))
        labels.append(label)
        size += image.nbytes
        if isinstance(memory, list) and size > IN_MEMORY:
            memory = None
        if memory is not None:
            memory.append(image)
    if not labels:
        raise _empty(split)
    if len(labels) < total:
        raise OfframpError(
            f"the {split} data has a length of {total} and gave {len(labels)} samples; correct it"
        )
    (_check_rows if map_style else _check_order)(samples, split, shas)
    return DatasetImages(split, samples, tuple(types), tuple(shas), memory), labels


def _read_arrays(pair: tuple[Any, ...], split: str) -> ReadSplit:
    if len(pair) != 2 or not isinstance(pair[0], (Tensor, np.ndarray)):
        raise OfframpError(f"the {split} data is a tuple, but not of two arrays; give images, labels")
    # Not as it lies there: an array of BGR that is turned to RGB goes backwards.
    array = np.ascontiguousarray(pair[0]) if isinstance(pair[0], np.ndarray) else pair[0]
    try:
        images = torch.as_tensor(array).detach()
        check_numbers(images, f"the {split} images")
        images = images.cpu()
    except TypeError:
        raise OfframpError(f"the {split} images are no numbers; give uint8 pixels") from None
    last = isinstance(pair[0], np.ndarray) and images.dim() == 4 and images.shape[1] not in (1, 3)
    if last and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2).contiguous()
    if images.dim() == 3:
        images = images[:, None]
    if isinstance(pair[1], Tensor):
        check_numbers(pair[1], f"the {split} labels")
    labels = pair[1].tolist() if hasattr(pair[1], "tolist") else pair[1]
    if not isinstance(labels, (list, tuple)):
        raise OfframpError(
            f"the {split} labels are {kind_of(labels)}; give a list of one label for each image"
        )
    if len(images) != len(labels):
        raise OfframpError(
            f"the {split} data has {len(images)} images but {len(labels)} labels; "
            "give one label for each image"
        )
    if not labels:
        raise _empty(split)
    return as_pixels(images, f"the {split} data"), labels


def _empty(split: str) -> OfframpError:
    return OfframpError(f"the {split} data holds no samples; give it at least one")


def _map_style(samples: Any) -> bool:
    return hasattr(samples, "__getitem__") and not isinstance(samples, IterableDataset)


def _length(samples: Any, split: str) -> int:
    try:
        return len(samples)
    except (TypeError, NotImplementedError, AttributeError):
        raise OfframpError(
            f"the {split} data is {kind_of(samples)} without a length; give a map-style "
            "Dataset, or an iterable one with __len__ (of WebDataset: .with_length(n, silent=True))"
        ) from None


def _by_rows(samples: SampleRows, split: str, total: int) -> Iterator[tuple[Tensor, Any]]:
    for row in range(total):
        yield read_sample(samples, row, plain_seed(row), f"{split} sample {row}")


def _in_order(samples: Any, split: str, total: int, seed: int) -> Iterator[tuple[Tensor, Any]]:
    """The first samples of an iterable."""
    with seeded_on_cpu(derive(seed, "samples")):
        where = f"{split} data"
        try:
            for number, sample in enumerate(itertools.islice(iter(samples), total)):
                where = f"{split} sample {number + 1}"
                yield as_sample(sample, f"{split} sample {number}")
        except OfframpError:
            raise
        except Exception as error:
            raise sample_failed(where, error) from error


def _probes(total: int) -> range:
    return range(0, total, -(-total // PROBES))


def _check_rows(samples: SampleRows, split: str, shas: Sequence[str]) -> None:
    """Raises OfframpError where samples depend on more than their number."""
    for row in _probes(len(shas)):
        where = f"{split} sample {row}"

        def sha(seed: int, row: int = row, where: str = where) -> str:
            return pixel_digest(read_sample(samples, row, seed, where)[0])

        if sha(derive(1, "sample", row)) != shas[row]:
            raise _changing(split, where) if sha(plain_seed(row)) == shas[row] else _unseeded(where)


def _check_order(samples: Any, split: str, shas: Sequence[str]) -> None:
    """Raises OfframpError where a second pass gives other samples than the first."""
    for number, (image, _) in enumerate(_in_order(samples, split, min(len(shas), PROBES), 1)):
        if pixel_digest(image) != shas[number]:
            raise OfframpError(
                f"{split} sample {number} is another one in the next pass; leave out shuffling, which "
                "offramp does itself, and random transforms: use `augment`"
            )


def _changing(split: str, where: str) -> OfframpError:
    """What to say of a random transform where images must stand still."""
    if split == "train":
        remedy = (
            "give `plain`, the same Dataset without its random transform, to evaluate and hold out of, "
            "or leave the transform out and set `augment`"
        )
    else:
        remedy = "give the transform that evaluates; only train may have a random one"
    return OfframpError(f"{where} is another image whenever it is read; {remedy}")


def _unseeded(where: str) -> OfframpError:
    return OfframpError(
        f"{where} changes by a generator of its own, so no run could be repeated; draw from torch's, "
        "NumPy's or Python's global one, which are seeded for each sample"
    )


def _geometry(types: set[SampleType], shape: Shape | None) -> Geometry:
    """What a Dataset's pictures are made to: `shape`, where any has another size; else gray beside color
    is color, as of any source.

    Raises OfframpError where pictures are to be made to what is no square.
    """
    if not types or not all(kind.picture for kind in types):
        return Geometry()
    if shape is None or {kind.shape[1:] for kind in types} == {shape[1:]}:
        return Geometry(channels=3 if len({kind.shape[0] for kind in types}) > 1 else None)
    if shape[1] != shape[2] or shape[0] not in (1, 3):
        raise OfframpError(
            f"pictures are of other sizes than the network takes, and that is {list(shape)}, no square "
            "picture; have the Dataset give images of that shape, or attach with the images' shape"
        )
    return Geometry(size=shape[1], channels=1 if shape[0] == 1 else 3)


def _scaled(types: Sequence[SampleType], size: int) -> str:
    """What to know where pictures are scaled."""
    others = [kind.shape[1:] for kind in types if kind.shape[1:] != (size, size)]
    high, wide = others[0]
    return (
        f"{len(others):,} of {counted(len(types), 'picture')} are of another size than the network "
        f"takes, such as {wide}×{high}: they are scaled and cropped to {size}×{size}"
    )
