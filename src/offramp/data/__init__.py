"""Data sets as four splits: train, validation, calibration, test.

A source (`sources/`) returns raw splits (`raw.py`), or a user's own data does (`samples.py`).
`splits.py` chooses which image is in which split, `read.py` reads the images (`images/`) into a `Data`
(`dataset.py`), and `batches.py` hands random views of them (`views.py`) to the training. `load.py` does
all but the last.
"""

from offramp.data.batches import bounds, order
from offramp.data.dataset import Data, Split, normalize, statistics
from offramp.data.load import assemble, from_dataset, load, save_splits
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
