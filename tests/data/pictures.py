"""Image files and folders for tests, and where real data lies."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from offramp.augment import View
from offramp.data import Data, DataSpec, load, order
from offramp.engine.images import Images
from support import CPU
from wording import refusal

REAL = Path(os.environ.get("OFFRAMP_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def real(name: str) -> Any:
    """A mark that skips, saying so, where real data of that name is not at hand."""
    return pytest.mark.skipif(not (REAL / name).exists(), reason=f"{name} is not at {REAL}")


def noise(seed: int, height: int = 6, width: int = 6) -> np.ndarray:
    """[H, W, 3] uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int = 32, width: int = 48) -> np.ndarray:
    """[H, W, 3] uint8, different in every corner, which JPEG keeps nearly as it is."""
    down = np.linspace(20, 220, height)[:, None] + np.zeros((1, width))
    across = np.linspace(230, 10, width)[None] + np.zeros((height, 1))
    return np.stack([down, across, (down + across) / 2], 2).astype(np.uint8)


def save(path: Path, pixels: np.ndarray | Image.Image, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **how)
    return path


def tree(root: Path, splits: Iterable[str] = ("train", "test"), n: int = 12) -> Path:
    """`split/class/image` of two classes, n images each, every image another."""
    seed = 0
    for split in splits:
        for name in ("cat", "dog"):
            for i in range(n):
                save(root / split / name / f"p{i // 2}_{i}.png", noise(seed))
                seed += 1
    return root


def read(name: str, root: Path | str | None = None, **settings: Any) -> Data:
    """Through `offramp.data.load`: fields of DataSpec by their names, all others as options."""
    fields = {k: settings.pop(k) for k in list(settings) if k in DataSpec.__dataclass_fields__}
    where = None if root is None else str(root)
    return load(DataSpec(name, root=where, **fields, options=tuple(settings.items())))


REASON = re.compile(
    r"((?:cannot be|no readable|not NIH's|no split file|no regular expression)[^()]*) \(.*\)(?=;|$)"
)


def refused(function: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    """As `wording.refusal`, without the reason that a library gives: its versions word it anew."""
    return REASON.sub(r"\1 (REASON)", refusal(function, *args, **kwargs))


def epoch(data: Data, workers: int = 0, number: int = 0) -> Iterator[torch.Tensor]:
    """What a training epoch and the passes around it see."""
    images = Images(data, CPU, workers)
    view = View(1, number) if data.augment else None
    yield from images.reads("train", torch.split(order(1, number, len(data.train)), 16), view)
    for name, split in data.splits.items():
        yield from images.reads(name, torch.split(torch.arange(len(split)), 16))
    images.close()


def same(first: Iterator[torch.Tensor], second: Iterator[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """[H, W, 3] as [3, H, W]."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


def pixel_hash(image: torch.Tensor) -> str:
    return hashlib.sha256(image.contiguous().numpy().data).hexdigest()[:16]


def digests(data: Data) -> dict[str, str]:
    return {name: split.digest for name, split in data.splits.items()}


def counts(data: Data) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}
