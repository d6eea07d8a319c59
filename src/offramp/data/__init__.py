"""Data sets as four splits: train, validation, calibration, test."""

from offramp.data.dataset import Data, Split, normalize, statistics
from offramp.data.load import assemble, from_dataset, load, save_splits
from offramp.data.loading.batches import bounds, order
from offramp.data.raw import RawData, RawSplit
from offramp.data.sources import DATASETS
from offramp.data_spec import DataSpec

__all__ = [
    "DATASETS",
    "Data",
    "DataSpec",
    "RawData",
    "RawSplit",
    "Split",
    "assemble",
    "bounds",
    "from_dataset",
    "load",
    "normalize",
    "order",
    "save_splits",
    "statistics",
]
