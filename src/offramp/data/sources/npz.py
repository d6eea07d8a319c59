"""NumPy archives in the layout of MedMNIST (Yang et al., 2023): arrays of images and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from offramp import arrays
from offramp.data.raw import DataSource, RawData, RawSplit
from offramp.errors import OfframpError, shortened
from offramp.hashing import file_digest

FETCH = "one of MedMNIST's files, such as pathmnist.npz, from https://zenodo.org/records/10519652"
SPLITS = {"train": "train", "validation": "val", "test": "test"}
KINDS = ("images", "labels")


def npz(root: Path, file: str | None = None, classes: Sequence[str] | None = None) -> RawData:
    """`train_images`, `train_labels`, and the same of `val` and `test`, which may be absent.

    Images are [N, H, W] or [N, H, W, 3] uint8, labels [N] or [N, 1], or of several labels an image
    [N, C] of 0 and 1. Archives with pickled objects are refused.

    Args:
        root: The file, or the folder that holds it.
        file: Its name, where the folder holds several.
        classes: Their names, in order; by default their numbers.

    Raises:
        OfframpError: naming the file and array that is missing or wrong.
    """
    path = _path(root, file)
    try:
        heads = arrays.headers(path)
        present = {name: key for name, key in SPLITS.items() if f"{key}_images" in heads}
        for key in present.values():
            _check(path, heads, key)
        members = arrays.read(path, {f"{key}_{kind}" for key in present.values() for kind in KINDS})
    except (ValueError, OSError) as error:
        raise OfframpError(f"{path} cannot be read ({error}); fetch it again") from error
    if "train" not in present:
        names = shortened(", ".join(sorted(heads)) or "none", 200)
        raise OfframpError(
            f"{path} holds no array train_images; give MedMNIST's layout (it holds {names})"
        )
    parts = {name: _part(*(members[f"{key}_{kind}"] for kind in KINDS)) for name, key in present.items()}
    return RawData(
        parts["train"],
        parts.get("test"),
        tuple(map(str, classes or ())),
        validation=parts.get("validation"),
        provenance={"root": str(root), "files": {path.name: {"sha256": file_digest(path)}}},
    )


def _path(root: Path, file: str | None) -> Path:
    if root.is_file() and file is None:
        return root
    if not root.is_dir():
        raise OfframpError(f"there is no {root}; fetch {FETCH}, or set data.root")
    if file is not None:
        if not (root / file).is_file():
            raise OfframpError(f"{root} holds no {file}; fetch {FETCH}")
        return root / file
    paths = sorted(p for p in root.glob("*.npz") if p.is_file())
    if len(paths) != 1:
        names = ", ".join(p.name for p in paths) or "none"
        raise OfframpError(
            f"{root} should hold one .npz file and holds {names}; set data.file, or fetch {FETCH}"
        )
    return paths[0]


def _check(path: Path, heads: Mapping[str, arrays.Header], key: str) -> None:
    """Raises OfframpError for arrays of another shape or type than images and labels have."""
    if f"{key}_labels" not in heads:
        raise OfframpError(f"{path} holds {key}_images and no {key}_labels; fetch it again")
    (shape, kind), (labels, numbers) = (heads[f"{key}_{kind}"] for kind in KINDS)
    where = f"{path}: {key}_images"
    if kind != np.uint8:
        raise OfframpError(f"{where} is {kind}; give uint8")
    if len(shape) != 3 and not (len(shape) == 4 and shape[3] in (1, 3)):
        raise OfframpError(f"{where} has the shape {shape}; give [N, H, W] or [N, H, W, 3]")
    if len(labels) not in (1, 2) or numbers.kind not in "iu":
        raise OfframpError(
            f"{path}: {key}_labels is {numbers} {labels}; one class number an image is "
            "needed, or 0 and 1 for each of its labels"
        )
    if labels[0] != shape[0]:
        raise OfframpError(f"{path}: {key} has {shape[0]} images but {labels[0]} labels; fetch it again")


def _part(images: np.ndarray, labels: np.ndarray) -> RawSplit:
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    several = labels.ndim == 2 and labels.shape[1] > 1
    numbers = labels.astype(np.uint8) if several else labels.reshape(len(labels)).astype(np.int64)
    return RawSplit(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(numbers))


NPZ = DataSource(npz, FETCH)
