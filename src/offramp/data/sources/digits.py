"""scikit-learn's bundled digits (Alpaydin & Kaynak, 1998): 1,797 gray images of 8×8, 10 classes."""

from __future__ import annotations

import torch

from offramp.data.raw import RawData, RawSplit
from offramp.data.splits import stratified

TEST_SHARE = 0.25


def digits() -> RawData:
    """[N, 1, 8, 8] uint8: the values 0..16 scaled to 0..255. No official split exists: a quarter,
    classes in proportion, is the test split, always the same one."""
    from sklearn.datasets import load_digits  # slow to import, and needed here only

    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images)[:, None]
    images = (pixels * (255 / 16)).round().to(torch.uint8)
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[stratified(labels, round(len(labels) * TEST_SHARE), 0, "digits test")] = True
    classes = tuple(str(name) for name in bunch.target_names)
    return RawData(RawSplit(images[~test], labels[~test]), RawSplit(images[test], labels[test]), classes)
