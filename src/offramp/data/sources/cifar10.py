"""CIFAR-10 (Krizhevsky, 2009): 32 px color images of 10 classes, from Parquet files."""

from __future__ import annotations

from pathlib import Path

from offramp.data import parquet
from offramp.data.raw import RawData

FETCH = "the Parquet files of https://huggingface.co/datasets/uoft-cs/cifar10"


def cifar10(root: Path, image_column: str = "img", label_column: str = "label") -> RawData:
    """A folder with train-*.parquet and test-*.parquet, as on the Hugging Face hub.

    Counts and classes are taken as found, so a smaller or relabelled folder works too.

    Raises OfframpError naming the file that is missing or wrong.
    """
    return parquet.read(root, image_column, label_column, FETCH)
