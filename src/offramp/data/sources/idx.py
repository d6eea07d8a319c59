"""IDX files, the form of MNIST (LeCun et al., 1998), Fashion-MNIST, KMNIST and EMNIST."""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from offramp.arrays import LARGE, RATIO
from offramp.data.images.files import check_folder
from offramp.data.raw import DataSource, RawData, RawSplit
from offramp.errors import OfframpError
from offramp.files import ARRAYS, read_regular
from offramp.hashing import file_digest
from offramp.units import size

FETCH = (
    "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
    "t10k-labels-idx1-ubyte.gz, such as Fashion-MNIST's of "
    "https://github.com/zalandoresearch/fashion-mnist"
)
NAMES = {"train": "train", "test": "(?:t10k|test)"}
UINT8 = 8


def idx(
    root: Path, prefix: str = "", classes: Sequence[str] | None = None, first_label: int = 0
) -> RawData:
    """The four files of a set, gzipped or not: [N, H, W] or [N, H, W, 3] uint8 and labels [N].

    Args:
        root: The folder.
        prefix: What the files' names begin with, where a folder holds several sets (`emnist-letters-`).
        classes: Their names, in order; by default their numbers.
        first_label: The number that the files give the first class (1 in EMNIST's letters).

    Raises:
        OfframpError: naming the file that is missing or wrong.
    """
    check_folder(root, FETCH)
    files: dict[str, Any] = {}
    parts = {}
    for split in NAMES:
        images, labels = (_find(root, prefix, split, kind) for kind in ("images", "labels"))
        numbers = _array(labels).to(torch.int64)
        if numbers.dim() != 1:
            raise OfframpError(f"{labels} has the shape {list(numbers.shape)}; labels are [N]")
        parts[split] = RawSplit(_images(images), numbers - first_label)
        files |= {path.name: {"sha256": file_digest(path)} for path in (images, labels)}
    provenance = {"root": str(root), "files": files}
    return RawData(parts["train"], parts["test"], tuple(map(str, classes or ())), provenance=provenance)


def _find(root: Path, prefix: str, split: str, kind: str) -> Path:
    name = re.compile(rf"{re.escape(prefix)}{NAMES[split]}[-_]{kind}[-_.]idx\d-ubyte(\.gz)?")
    paths = sorted(p for p in root.iterdir() if name.fullmatch(p.name))
    if not paths:
        raise OfframpError(
            f"{root} holds no {prefix}{'t10k' if split == 'test' else split}-{kind}-idx*-ubyte file, "
            f"gzipped or not; fetch {FETCH}, or set data.prefix to what the names begin with"
        )
    return paths[0]  # the unpacked one, where both are there


def _images(path: Path) -> Tensor:
    images = _array(path)
    if images.dim() == 3:
        return images[:, None]
    if images.dim() == 4 and images.shape[3] in (1, 3):
        return images.permute(0, 3, 1, 2).contiguous()
    raise OfframpError(f"{path} has the shape {list(images.shape)}; images are [N, H, W]")


def _array(path: Path) -> Tensor:
    """An IDX file: two zero bytes, the type, the number of dimensions, each in four bytes, the data."""
    try:
        content = read_regular(path, ARRAYS)
        if content[:2] == b"\x1f\x8b":
            # No more than may be an answer: a small file can unpack to any size.
            most = max(LARGE, RATIO * len(content))
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(most)
            if len(content) == most:
                raise OfframpError(f"{path} unpacks to more than {size(most)}; fetch it again")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise OfframpError(f"{path} cannot be read ({reason}); fetch it again") from error
    if len(content) < 8 or content[:2] != b"\0\0":
        raise OfframpError(f"{path} is no IDX file; fetch it again")
    if content[2] != UINT8:
        raise OfframpError(f"{path} holds values of IDX type {content[2]}; only bytes (8) are images")
    head = 4 + 4 * content[3]
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, head, 4)]
    if len(content) != head + math.prod(shape) or not math.prod(shape):
        raise OfframpError(
            f"{path} should hold {shape} values and has {len(content) - head}; fetch it again"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=head).view(shape)


IDX = DataSource(idx, FETCH)
