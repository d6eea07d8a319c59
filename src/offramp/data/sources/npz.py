"""NumPy archives in the layout of MedMNIST (Yang et al., 2023): arrays of images and labels."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from offramp.data.raw import RawData, RawSplit
from offramp.errors import OfframpError
from offramp.hashing import file_digest

FETCH = "one of MedMNIST's files, such as pathmnist.npz, from https://zenodo.org/records/10519652"
SPLITS = {"train": "train", "validation": "val", "test": "test"}


def npz(root: Path, file: str | None = None, classes: Sequence[str] | None = None) -> RawData:
    """`train_images`, `train_labels`, and the same of `val` and `test`, which may be absent: images
    [N, H, W] or [N, H, W, 3] uint8, labels [N] or [N, 1]. Archives with pickled objects are refused.

    root: the file, or the folder that holds it.  file: its name, where the folder holds several.
    classes: their names, in order; by default their numbers.

    Raises OfframpError naming the file and array that is missing or wrong.
    """
    path = _path(root, file)
    try:
        with path.open("rb") as stored, np.load(stored, allow_pickle=False) as arrays:
            parts = {name: _part(path, arrays, key) for name, key in SPLITS.items()}
    except (ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = "it holds pickled objects" if "pickle" in str(error) else " ".join(str(error).split())
        raise OfframpError(f"{path} cannot be read ({reason}); fetch it again") from error
    if parts["train"] is None:
        raise OfframpError(f"{path} holds no array train_images; give MedMNIST's layout")
    return RawData(
        parts["train"],
        parts["test"],
        tuple(map(str, classes or ())),
        validation=parts["validation"],
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
    found = sorted(root.glob("*.npz"))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise OfframpError(
            f"{root} should hold one .npz file and holds {names}; set data.file, or fetch {FETCH}"
        )
    return found[0]


def _part(path: Path, arrays: np.lib.npyio.NpzFile, key: str) -> RawSplit | None:
    if f"{key}_images" not in arrays:
        return None
    if f"{key}_labels" not in arrays:
        raise OfframpError(f"{path} holds {key}_images and no {key}_labels; fetch it again")
    images, labels = arrays[f"{key}_images"], arrays[f"{key}_labels"]
    where = f"{path}: {key}_images"
    if images.dtype != np.uint8:
        raise OfframpError(f"{where} is {images.dtype}; give uint8")
    if images.ndim == 4 and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    elif images.ndim == 3:
        images = images[:, None]
    else:
        raise OfframpError(f"{where} has the shape {images.shape}; give [N, H, W] or [N, H, W, 3]")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise OfframpError(
            f"{path}: {key}_labels is {labels.dtype} {labels.shape}; one class number an image is "
            "needed (sets with several labels an image are not supported)"
        )
    return RawSplit(
        torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64))
    )
