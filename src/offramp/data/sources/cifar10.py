"""CIFAR-10 (Krizhevsky, 2009): 32 px color images of 10 classes."""

from __future__ import annotations

from pathlib import Path

from offramp.data.raw import RawData
from offramp.data.sources import cifar

FETCH = (
    "the Parquet files of https://huggingface.co/datasets/uoft-cs/cifar10 (train-*.parquet and "
    f"test-*.parquet), or cifar-10-binary.tar.gz of {cifar.PAGE}"
)
BINARY = cifar.Binary(
    name="CIFAR-10",
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test=("test_batch.bin",),
    labels=1,
    label=0,
    names="batches.meta.txt",
)


def cifar10(
    root: Path, image_column: str = "img", label_column: str = "label", official: bool = True
) -> RawData:
    """A folder with train-*.parquet and test-*.parquet, as on the Hugging Face hub, or with the
    official binary version, packed or not.

    official: whether other counts than 50,000 and 10,000 images are refused; with `false` a smaller or
    relabelled folder works too, and counts and classes are taken as found.

    Raises OfframpError naming the file that is missing or wrong.
    """
    return cifar.read(root, BINARY, (image_column, label_column), FETCH, official)
