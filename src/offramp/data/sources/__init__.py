"""The data sets known by name: one file and one line each.

A source takes `root` (the folder of its files, where it reads any) and options, all by name, and
returns RawData. Its module's FETCH says what to put into that folder, and where it comes from. Sizes,
subsets, hold-outs and statistics are not its business.
"""

from __future__ import annotations

from collections.abc import Callable

from offramp.data.raw import RawData
from offramp.data.sources.chestxray14 import chestxray14
from offramp.data.sources.cifar10 import cifar10
from offramp.data.sources.cifar100 import cifar100
from offramp.data.sources.digits import digits
from offramp.data.sources.folder import folder
from offramp.data.sources.hub import hub
from offramp.data.sources.idx import idx
from offramp.data.sources.imagenet100 import imagenet100
from offramp.data.sources.npz import npz
from offramp.data.sources.table import table

DATASETS: dict[str, Callable[..., RawData]] = {
    "chestxray14": chestxray14,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "digits": digits,
    "folder": folder,
    "hub": hub,
    "idx": idx,
    "imagenet100": imagenet100,
    "npz": npz,
    "table": table,
}
