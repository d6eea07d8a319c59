"""The data sets known by name: one file and one line each.

A source takes `root` (the folder of its files, where it reads any) and options, all by name, and
returns RawData. Beside it stands what to put into that folder, and what is known of the data before they
are there. Sizes, subsets, hold-outs and statistics are not its business.
"""

from __future__ import annotations

from offramp.data.raw import DataSource
from offramp.data.sources.chestxray14 import CHESTXRAY14
from offramp.data.sources.cifar import CIFAR10, CIFAR100
from offramp.data.sources.digits import DIGITS
from offramp.data.sources.folder import FOLDER
from offramp.data.sources.hub import HUB
from offramp.data.sources.idx import IDX
from offramp.data.sources.imagenet100 import IMAGENET100
from offramp.data.sources.npz import NPZ
from offramp.data.sources.table import TABLE

DATASETS: dict[str, DataSource] = {
    "chestxray14": CHESTXRAY14,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "digits": DIGITS,
    "folder": FOLDER,
    "hub": HUB,
    "idx": IDX,
    "imagenet100": IMAGENET100,
    "npz": NPZ,
    "table": TABLE,
}
