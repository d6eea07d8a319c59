"""A user's own data: PyTorch's map-style Datasets, pairs of arrays, and functions that return them."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sized
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from offramp.data.dataset import SPLITS
from offramp.data.images.decode import stack
from offramp.data.pace import Pace
from offramp.data.raw import RawData, RawSplit
from offramp.errors import OfframpError, nearest
from offramp.usercode import Loaded, failed, file_of


class Samples(Protocol):
    """A map-style Dataset of (image, label); it also has a length."""

    def __getitem__(self, index: int, /) -> Any: ...


def read_samples(samples: Samples | tuple[Any, Any], name: str) -> RawSplit:
    """All samples of a map-style Dataset, each read once (so a random transform is frozen), or a
    pair of arrays (images [N, C, H, W] or [N, H, W], labels [N]).

    An image may be a PIL image, a tensor [C, H, W] or [H, W], or an array [H, W, C], [C, H, W] or
    [H, W]; uint8, or floating point taken as already normalized. name: of the split, for errors.

    Raises OfframpError naming the sample that is wrong.
    """
    if isinstance(samples, tuple):
        return _read_arrays(samples, name)
    if not isinstance(samples, Sized) or not hasattr(samples, "__getitem__"):
        raise OfframpError(
            f"the {name} data is a {type(samples).__name__}; give a map-style Dataset, with "
            "__len__ and __getitem__"
        )
    images, labels, names = [], [], []
    for i in Pace(f"reading {name} samples", len(samples)).over(range(len(samples))):
        where = f"{name} sample {i}"
        sample = samples[i]
        if not isinstance(sample, (tuple, list)) or len(sample) != 2:
            raise OfframpError(f"{where} is a {type(sample).__name__}; give (image, label)")
        images.append(_image(sample[0], where))
        labels.append(_label(sample[1], where))
        names.append(where)
    if not images:
        raise OfframpError(f"the {name} data holds no samples; give it at least one")
    return RawSplit(stack(images, names), torch.tensor(labels, dtype=torch.int64))


def from_function(name: str, own: Loaded, arguments: Mapping[str, Any]) -> RawData:
    """What the user's function `own` returns, as RawData.

    It may return RawData; a mapping with `train`, and optionally `test`, `validation`,
    `calibration` (Datasets or pairs of arrays) and `classes` (names); or a tuple (train, test).

    Raises OfframpError when the function fails or returns something else.
    """
    try:
        made = own.function(**arguments)
        if isinstance(made, tuple) and len(made) == 2:
            made = dict(zip(("train", "test"), made, strict=True))
        raw = made if isinstance(made, RawData) else _from_mapping(name, made)
    except OfframpError:
        raise
    except Exception as error:
        raise failed(name, error) from error
    source = {"file": str(file_of(name)), "sha256": own.sha256}
    return replace(raw, provenance={**raw.provenance, "source": source})


def read_given(samples: Samples | tuple[Any, Any] | None, name: str) -> RawSplit | None:
    """`read_samples` of a split that need not be given."""
    return None if samples is None else read_samples(samples, name)


def class_names(samples: Any) -> tuple[str, ...]:
    """The names that a Dataset gives itself, as torchvision's do; empty where it has none."""
    names = getattr(samples, "classes", None)
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()


def _from_mapping(name: str, made: Any) -> RawData:
    if not isinstance(made, Mapping) or made.get("train") is None:
        raise OfframpError(
            f"{name} returned a {type(made).__name__}; return RawData, a tuple (train, test), or a "
            "mapping with at least 'train'"
        )
    for key in made:
        if key not in (*SPLITS, "classes"):
            raise OfframpError(
                f"{name} returned the key {key!r}{nearest(str(key), (*SPLITS, 'classes'))}"
            )
    classes = made.get("classes")
    return RawData(
        train=read_samples(made["train"], "train"),
        validation=read_given(made.get("validation"), "validation"),
        calibration=read_given(made.get("calibration"), "calibration"),
        test=read_given(made.get("test"), "test"),
        classes=class_names(made["train"]) if classes is None else tuple(map(str, classes)),
    )


def _read_arrays(pair: tuple[Any, ...], name: str) -> RawSplit:
    if len(pair) != 2 or not all(isinstance(part, (Tensor, np.ndarray)) for part in pair):
        raise OfframpError(f"the {name} data is a tuple, but not of two arrays; give images, labels")
    try:
        images, labels = (torch.as_tensor(part) for part in pair)
    except TypeError:
        raise OfframpError(f"the {name} data must be numbers; give class numbers as labels") from None
    if images.dim() == 3:
        images = images[:, None]
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise OfframpError(f"{name} labels must be integers [N]; give one class number an image")
    if len(images) != len(labels):
        raise OfframpError(
            f"the {name} data has {len(images)} images but {len(labels)} labels; "
            "give one label for each image"
        )
    return RawSplit(_pixels(images, f"the {name} data"), labels.to(torch.int64))


def _image(image: Any, where: str) -> Tensor:
    """One image as [C, H, W], uint8 or float32."""
    if isinstance(image, Image.Image):
        deep = image.mode == "F" or image.mode.startswith("I")
        if deep:
            raise OfframpError(f"{where} has PIL mode {image.mode}; convert it to 8 bits a channel")
        image = np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    if isinstance(image, np.ndarray):
        channels_last = image.ndim == 3 and image.shape[2] in (1, 3)
        image = torch.from_numpy(np.ascontiguousarray(image))
        image = image.permute(2, 0, 1) if channels_last else image
    if not isinstance(image, Tensor):
        raise OfframpError(
            f"{where} has a {type(image).__name__} for an image; give a PIL image, tensor or array"
        )
    image = image[None] if image.dim() == 2 else image
    if image.dim() != 3:
        raise OfframpError(f"{where} has an image of shape {list(image.shape)}; give [C, H, W]")
    return _pixels(image, where)


def _pixels(images: Tensor, where: str) -> Tensor:
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise OfframpError(f"{where} has {images.dtype} pixels; give uint8, or floats normalized")
    return images if images.dtype == torch.uint8 else images.to(torch.float32)


def _label(label: Any, where: str) -> int:
    try:
        return operator.index(label)
    except TypeError:
        raise OfframpError(f"{where} has the label {label!r}; give an integer class number") from None
