"""scikit-learn's bundled digits (Alpaydin & Kaynak, 1998): 1,797 gray images of 8×8, 10 classes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from offramp.data.raw import DataSource, RawData, RawSplit
from offramp.data.splits import stratified
from offramp.errors import OfframpError

TEST_SHARE = 0.25
FILE = "datasets/data/digits.csv.gz"  # read as it is: importing scikit-learn takes a second


def digits() -> RawData:
    """[N, 1, 8, 8] uint8: the values 0..16 scaled to 0..255. No official split exists: a quarter,
    classes in proportion, is the test split, always the same one."""
    package = find_spec("sklearn")
    folders = package and package.submodule_search_locations
    if not folders:
        raise OfframpError("the digits come with scikit-learn: pip install scikit-learn")
    rows = torch.from_numpy(np.loadtxt(Path(folders[0]) / FILE, delimiter=","))  # 64 pixels and a label
    images = (rows[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).round().to(torch.uint8)
    labels = rows[:, -1].to(torch.int64)
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[stratified(labels, round(len(labels) * TEST_SHARE), 0, "digits test")] = True
    classes = tuple(map(str, range(10)))
    return RawData(RawSplit(images[~test], labels[~test]), RawSplit(images[test], labels[test]), classes)


DIGITS = DataSource(digits)
