"""CIFAR-100 (Krizhevsky, 2009): 32 px color images of 100 classes, which form 20 coarse ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from offramp.data.raw import RawData
from offramp.data.sources import cifar

FETCH = (
    "the Parquet files of https://huggingface.co/datasets/uoft-cs/cifar100 (train-*.parquet and "
    f"test-*.parquet), or cifar-100-binary.tar.gz of {cifar.PAGE}"
)
FINE = cifar.Binary(
    name="CIFAR-100",
    archive="cifar-100-binary.tar.gz",
    folder="cifar-100-binary",
    train=("train.bin",),
    test=("test.bin",),
    labels=2,
    label=1,
    names="fine_label_names.txt",
)
COARSE = replace(FINE, label=0, names="coarse_label_names.txt")


def cifar100(
    root: Path,
    coarse: bool = False,
    image_column: str = "img",
    label_column: str | None = None,
    official: bool = True,
) -> RawData:
    """A folder with train-*.parquet and test-*.parquet, as on the Hugging Face hub, or with the
    official binary version, packed or not.

    coarse: the 20 coarse classes.  official: whether other counts than 50,000 and 10,000 images are
    refused.

    Raises OfframpError naming the file that is missing or wrong.
    """
    binary = COARSE if coarse else FINE
    label = label_column or ("coarse_label" if coarse else "fine_label")
    return cifar.read(root, binary, (image_column, label), FETCH, official)
