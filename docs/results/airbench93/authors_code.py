"""The author's own airbench93 on these files, on the CPU: is the distance to his 93.0 % ours?

    pip install --no-deps airbench==0.1.8
    python docs/results/airbench93/authors_code.py PATH [--seed 42] [--threads 2]

PATH is the folder with the Parquet files of CIFAR-10. Nothing of his training is written again here: his
package trains, in float32 in place of float16, and where it asks for a GPU it is given the CPU. It
prints a line an epoch, and last its accuracy with flips and shifts. 35 minutes of one core.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "test"):
            write(options.path, split, Path(folder))
        os.chdir(folder)  # where the package looks for cifar10/train.pt
        train()


def write(parquet: Path, split: str, folder: Path) -> None:
    """A split as the package keeps it."""
    (file,) = parquet.rglob(f"{split}-*.parquet")
    table = pd.read_parquet(file)
    images = [np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")) for cell in table["img"]]
    target = folder / "cifar10" / f"{split}.pt"
    target.parent.mkdir(exist_ok=True)
    labels = torch.tensor(table["label"].to_numpy())
    contents = {"images": torch.from_numpy(np.stack(images)), "labels": labels, "classes": []}
    torch.save(contents, target)


def train() -> None:
    """His training, with everything of CUDA answered by the CPU."""
    from airbench import lib_airbench93, utils

    event = SimpleNamespace(record=lambda: None, elapsed_time=lambda _: 0.0)
    on_cpu = {"device": lambda _: "cpu", "load": partial(torch.load, weights_only=True)}
    with (
        patch.object(utils, "torch", SimpleNamespace(**{**vars(torch), **on_cpu})),
        patch.object(torch.cuda, "Event", lambda **_: event),
        patch.object(torch.cuda, "synchronize", lambda: None),
        patch.object(torch.nn.Module, "cuda", lambda module: module),
        patch.object(torch.nn.Module, "half", torch.nn.Module.float),
        patch.object(torch.Tensor, "half", torch.Tensor.float),
    ):
        lib_airbench93.train93()


if __name__ == "__main__":
    main()
