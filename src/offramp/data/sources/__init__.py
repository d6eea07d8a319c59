"""The data sets known by name: one file and one line each.

A source takes `root` (the folder of its files, where it reads any) and options, all by name, and
returns RawData. Subsets, hold-outs and statistics are not its business.
"""

from __future__ import annotations

from collections.abc import Callable

from offramp.data.raw import RawData
from offramp.data.sources.cifar10 import cifar10
from offramp.data.sources.digits import digits
from offramp.data.sources.folder import folder

DATASETS: dict[str, Callable[..., RawData]] = {
    "cifar10": cifar10,
    "digits": digits,
    "folder": folder,
}
