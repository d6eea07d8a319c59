"""A user's own data: PyTorch's Datasets, pairs of arrays, and functions that return them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from offramp.augment import View
from offramp.data.images.files import pixel_digest
from offramp.data.images.geometry import Geometry
from offramp.data.images.own import (
    DatasetImages,
    Form,
    Rows,
    Spool,
    check_channels_first,
    form_of,
    pixels_of,
    plain_seed,
    read_sample,
    sample_failed,
    seeded,
    taken_apart,
    view_seed,
)
from offramp.data.labels import numbered
from offramp.data.progress import Pace
from offramp.data.raw import ImageRows, RawData, RawSplit
from offramp.data_spec import SPLITS
from offramp.errors import OfframpError, nearest
from offramp.inputs import Shape
from offramp.seeding import derive
from offramp.units import counted
from offramp.usercode import LoadedFunction, failed, file_of


class Counted(Rows, Protocol):
    """Rows that say how many they are."""

    def __len__(self) -> int: ...


Samples = Counted | Dataset[Any]
"""A Dataset of (image, label) that has a length, which not every type of one says; or a pair of arrays
(images, labels)."""

KEPT = 2**28  # bytes of a Dataset's images that stay in memory once they were read
PROBED = 64  # images of a split that are read twice, to find random transforms
FIRST = View(0, 0)


def read_samples(
    given: Mapping[str, Samples | None],
    plain: Samples | None = None,
    classes: Sequence[str] | None = None,
    shape: Shape | None = None,
) -> RawData:
    """The splits of a user's own data. `train` must be given; None stands for any other that is not.

    A split is a Dataset of (image, label) that has a length, map-style or iterable; or a pair of arrays
    (images [N, C, H, W], [N, H, W, C] or [N, H, W], or texts [N, T]; labels [N]). An image is a PIL
    image, a tensor [C, H, W] or [H, W], or an array [H, W, C], [C, H, W] or [H, W]; uint8, or floating
    point taken as already normalized. A text is ids of tokens [T], whole numbers, padded with zeros at
    the end. Labels: see `offramp.data.labels.numbered`.

    Each sample is read once, and kept where all are small; else it is read again when it is needed (an
    iterable's goes to a temporary file). Python's, NumPy's and torch's generators are seeded for it. A
    random transform is for training images alone; a few samples are read twice to find one.

    plain: the training samples without their random transform, in the same order: what is evaluated,
    held out, and counted.  classes: names; by default those that a Dataset gives itself
    (`train.classes`).  shape: (C, H, W) that a Dataset's pictures are made to, all or a few of them.

    Raises OfframpError naming the sample that is wrong, and for a random transform where none can be.
    """
    if isinstance(classes, str):
        raise OfframpError(f"classes is the text {classes!r}; give a list of names")
    known = {name: samples for name, samples in given.items() if samples is not None}
    if "train" not in known:
        raise OfframpError("there is no train data; give a Dataset of (image, label), or two arrays")
    read = {name: _read(samples, name) for name, samples in known.items() if name != "train"}
    read = {"train": _read_train(known["train"], plain), **read}
    names = class_names(known["train"]) if classes is None else tuple(map(str, classes))
    found = numbered({name: labels for name, (_, labels) in read.items()}, names)
    raw = {name: RawSplit(images, found.labels[name]) for name, (images, _) in read.items()}
    forms = [form for split in raw.values() for form in _forms(split.images)]
    geometry = _geometry(set(forms), shape)
    remarks = [found.remark] if found.remark else []
    if geometry.size is not None:
        remarks.append(_scaled(forms, geometry.size))
    if isinstance(own := raw["train"].images, DatasetImages) and own.drawn is not None:
        remarks.append("training images are drawn anew each epoch by the data's own random transform")
    return RawData(
        train=raw["train"],
        test=raw.get("test"),
        classes=found.classes,
        validation=raw.get("validation"),
        calibration=raw.get("calibration"),
        provenance={"remarks": remarks} if remarks else {},
        geometry=geometry,
    )


def from_function(name: str, own: LoadedFunction, arguments: Mapping[str, Any]) -> RawData:
    """What the user's function `own` returns, as RawData.

    It may return RawData; a mapping with `train`, and optionally `plain`, `test`, `validation`,
    `calibration` (as `read_samples` takes them) and `classes` (names); a tuple (train, test); or one
    pair of arrays.

    Raises OfframpError when the function fails or returns something else.
    """
    try:
        made = own.function(**arguments)
        if isinstance(made, tuple) and len(made) == 2:
            arrays = all(isinstance(part, (Tensor, np.ndarray)) for part in made)
            made = {"train": made} if arrays else dict(zip(("train", "test"), made, strict=True))
        raw = made if isinstance(made, RawData) else _from_mapping(name, made)
    except OfframpError:
        raise
    except Exception as error:
        raise failed(name, error) from error
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


def _from_mapping(name: str, made: Any) -> RawData:
    if not isinstance(made, Mapping) or made.get("train") is None:
        raise OfframpError(
            f"{name} returned a {type(made).__name__}; return RawData, a tuple (train, test), or a "
            "mapping with at least 'train'"
        )
    known = (*SPLITS, "plain", "classes")
    for key in made:
        if key not in known:
            raise OfframpError(f"{name} returned the key {key!r}{nearest(str(key), known)}")
    splits = {key: samples for key, samples in made.items() if key in SPLITS}
    return read_samples(splits, made.get("plain"), made.get("classes"))


Read = tuple[ImageRows, Sequence[Any]]  # images, and labels as they were given


def _read_train(samples: Samples, plain: Samples | None) -> Read:
    if plain is None:
        return _read(samples, "train")
    if isinstance(samples, tuple) or not _by_row(samples) or not _by_row(plain):
        raise OfframpError("`plain` needs map-style Datasets, as itself and as train; leave it out")
    images, labels = _read(plain, "plain")
    assert isinstance(images, DatasetImages)
    if (total := _length(samples, "train")) != len(images):
        raise OfframpError(
            f"train holds {total} samples, plain {len(images)}; give the same ones to both"
        )
    views = []
    images = replace(images, split="train")
    for row in Pace("reading train samples", len(images)).over(range(len(images))):
        name = images.name(row)
        image, label = read_sample(samples, row, view_seed(FIRST, row), name)
        if len(set(numbered({"train": [label, labels[row]]}).labels["train"].tolist())) > 1:
            raise OfframpError(
                f"{name} has the label {label!r}, in plain {labels[row]!r}; give both the same samples"
            )
        views.append(pixel_digest(image))
    for row in _probes(len(images)):
        again, _ = read_sample(samples, row, view_seed(FIRST, row), images.name(row))
        if pixel_digest(again) != views[row]:
            raise _unseeded(images.name(row))
    return replace(images, drawn=samples, views=tuple(views)), labels


def _read(samples: Samples, split: str) -> Read:
    if isinstance(samples, tuple):
        return _read_arrays(samples, split)
    if isinstance(samples, DataLoader):
        raise OfframpError(f"the {split} data is a DataLoader; give its dataset: loader.dataset")
    if isinstance(samples, str | os.PathLike):
        raise OfframpError(
            f"the {split} data is a {type(samples).__name__}; give a Dataset of (image, label), such as "
            "torchvision's ImageFolder, or a pair of arrays"
        )
    total, rows = _length(samples, split), _by_row(samples)
    passed = _by_rows(samples, split, total) if rows else _in_order(samples, split, total, 0)
    kept: list[Tensor] | Spool | None = [] if rows else Spool()
    forms: list[Form] = []
    shas: list[str] = []
    labels: list[Any] = []
    size = 0
    for image, label in Pace(f"reading {split} samples", total).over(passed):
        forms.append(form_of(image))
        shas.append(pixel_digest(image))
        labels.append(label)
        size += image.nbytes
        if isinstance(kept, list) and size > KEPT:
            kept = None
        if kept is not None:
            kept.append(image)
    if not labels:
        raise _none(split)
    if len(labels) < total:
        raise OfframpError(
            f"the {split} data has a length of {total} and gave {len(labels)} samples; correct it"
        )
    (_check_rows if rows else _check_order)(samples, split, shas)
    return DatasetImages(split, samples, tuple(forms), tuple(shas), kept), labels


def _none(split: str) -> OfframpError:
    return OfframpError(f"the {split} data holds no samples; give it at least one")


def _by_row(samples: Any) -> bool:
    return hasattr(samples, "__getitem__") and not isinstance(samples, IterableDataset)


def _length(samples: Any, split: str) -> int:
    try:
        return len(samples)
    except (TypeError, NotImplementedError, AttributeError):
        raise OfframpError(
            f"the {split} data is a {type(samples).__name__} without a length; give a map-style "
            "Dataset, or an iterable one with __len__ (of WebDataset: .with_length(n, silent=True))"
        ) from None


def _by_rows(samples: Rows, split: str, total: int) -> Iterator[tuple[Tensor, Any]]:
    for row in range(total):
        yield read_sample(samples, row, plain_seed(row), f"{split} sample {row}")


def _in_order(samples: Any, split: str, total: int, seed: int) -> Iterator[tuple[Tensor, Any]]:
    """The first samples of an iterable."""
    with seeded(derive(seed, "samples")):
        where = f"{split} data"
        try:
            for number, sample in enumerate(itertools.islice(iter(samples), total)):
                where = f"{split} sample {number + 1}"
                yield taken_apart(sample, f"{split} sample {number}")
        except OfframpError:
            raise
        except Exception as error:
            raise sample_failed(where, error) from error


def _probes(total: int) -> range:
    return range(0, total, -(-total // PROBED))


def _check_rows(samples: Rows, split: str, shas: Sequence[str]) -> None:
    """Raises OfframpError where samples depend on more than their number."""
    for row in _probes(len(shas)):
        where = f"{split} sample {row}"

        def sha(seed: int, row: int = row, where: str = where) -> str:
            return pixel_digest(read_sample(samples, row, seed, where)[0])

        if sha(derive(1, "sample", row)) != shas[row]:
            raise _changing(split, where) if sha(plain_seed(row)) == shas[row] else _unseeded(where)


def _check_order(samples: Any, split: str, shas: Sequence[str]) -> None:
    """Raises OfframpError where a second pass gives other samples than the first."""
    for number, (image, _) in enumerate(_in_order(samples, split, min(len(shas), PROBED), 1)):
        if pixel_digest(image) != shas[number]:
            raise OfframpError(
                f"{split} sample {number} is another one in the next pass; leave out shuffling, which "
                "offramp does itself, and random transforms: use `augment`"
            )


def _changing(split: str, where: str) -> OfframpError:
    """What to tell of a random transform where images must stand still."""
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


def _forms(images: ImageRows) -> Sequence[Form]:
    return images.forms if isinstance(images, DatasetImages) else ()


def _geometry(forms: set[Form], shape: Shape | None) -> Geometry:
    """What a Dataset's pictures are made to: the shape that is asked for, where any has another size;
    else gray beside color is color, as of any source.

    Raises OfframpError where pictures are to be made to what is no square.
    """
    if not forms or not all(form.picture for form in forms):
        return Geometry()
    if shape is None or {form.shape[1:] for form in forms} == {shape[1:]}:
        return Geometry(channels=3 if len({form.shape[0] for form in forms}) > 1 else None)
    if shape[1] != shape[2] or shape[0] not in (1, 3):
        raise OfframpError(
            f"pictures are of other sizes than the network takes, and that is {list(shape)}, no square "
            "picture; have the Dataset give images of that shape, or attach with the images' shape"
        )
    return Geometry(size=shape[1], channels=1 if shape[0] == 1 else 3)


def _scaled(forms: Sequence[Form], size: int) -> str:
    """What to tell where pictures are scaled."""
    others = [form.shape[1:] for form in forms if form.shape[1:] != (size, size)]
    high, wide = others[0]
    return (
        f"{len(others):,} of {counted(len(forms), 'picture')} are of another size than the network "
        f"takes, such as {wide}×{high}: they are scaled and cropped to {size}×{size}"
    )


def _read_arrays(pair: tuple[Any, ...], split: str) -> Read:
    if len(pair) != 2 or not isinstance(pair[0], (Tensor, np.ndarray)):
        raise OfframpError(f"the {split} data is a tuple, but not of two arrays; give images, labels")
    # Not as it lies there: an array of BGR that is turned to RGB goes backwards.
    given = np.ascontiguousarray(pair[0]) if isinstance(pair[0], np.ndarray) else pair[0]
    try:
        images = torch.as_tensor(given).detach().cpu()
    except TypeError:
        raise OfframpError(f"the {split} images are no numbers; give uint8 pixels") from None
    last = isinstance(pair[0], np.ndarray) and images.dim() == 4 and images.shape[1] not in (1, 3)
    if last and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2).contiguous()
    if images.dim() == 3:
        images = images[:, None]
    labels = pair[1].tolist() if hasattr(pair[1], "tolist") else pair[1]
    if not isinstance(labels, (list, tuple)):
        kind = type(labels).__name__
        raise OfframpError(f"the {split} labels are a {kind}; give a list of one label for each image")
    if len(images) != len(labels):
        raise OfframpError(
            f"the {split} data has {len(images)} images but {len(labels)} labels; "
            "give one label for each image"
        )
    if not labels:
        raise _none(split)
    check_channels_first(images, f"the {split} data")
    return pixels_of(images, f"the {split} data"), labels
