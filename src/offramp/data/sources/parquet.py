"""Folders of Parquet files in the form of the Hugging Face hub.

`train-00000-of-00002.parquet` … and `test-*.parquet`; an image column (a struct of `bytes` and
`path`, or plain bytes), an integer label column, class names in the schema's `huggingface` entry.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from offramp.data.images.decode import decode
from offramp.data.images.files import open_image
from offramp.data.raw import RawData, RawSplit
from offramp.data.sources import tree
from offramp.errors import OfframpError, in_line
from offramp.hashing import file_digest

FOLDERS = (".", "data", "plain_text")  # where the hub's repositories keep their shards


@dataclass(frozen=True, eq=False)
class Encoded:
    """Images as the bytes of their files; `encoded[rows]` decodes those rows only.

    files: a pyarrow column of N byte strings.  names: what to call each image in an error.
    ids: the same without folders. (See `offramp.data.images.files.Opened`.)
    """

    files: Any
    names: tuple[str, ...]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """rows: [n] int64. Returns [n, 3, H, W] uint8."""
        return decode(self._bytes(rows), [self.names[i] for i in rows.tolist()])

    def name(self, row: int) -> str:
        return self.names[row]

    def open(self, row: int) -> Image.Image:
        return open_image(self.files[row].as_py(), self.names[row])

    def digests(self, rows: Tensor) -> list[str]:
        return [hashlib.sha256(file).hexdigest() for file in self._bytes(rows)]

    def _bytes(self, rows: Tensor) -> list[bytes]:
        chosen: list[bytes] = self.files.take(pa.array(rows.numpy())).to_pylist()
        return chosen


def read(root: Path, image_column: str, label_column: str, fetch: str) -> RawData:
    """The train and test split of a folder. fetch: where to get the files, for the error.

    Raises OfframpError for a missing folder or shard, a file that is not Parquet, a column that is
    absent or of the wrong kind, or class names that differ between files.
    """
    columns = (image_column, label_column)
    train, classes, train_files = _read_split(root, "train", columns, fetch)
    test, test_classes, test_files = _read_split(root, "test", columns, fetch)
    if test_classes != classes:
        raise OfframpError(f"train and test files in {root} name other classes; fetch {fetch} again")
    provenance = {"root": str(root), "files": {**train_files, **test_files}}
    return RawData(train, test, classes, provenance=provenance)


def _read_split(
    root: Path, split: str, columns: tuple[str, str], fetch: str
) -> tuple[RawSplit, tuple[str, ...], dict[str, Any]]:
    files: list[Any] = []
    labels: list[Tensor] = []
    names: list[str] = []
    ids: list[str] = []
    provenance: dict[str, Any] = {}
    classes: set[tuple[str, ...]] = set()
    for path in _shards(root, split, fetch):
        table = _read_table(path, columns)
        files.extend(_image_bytes(table[columns[0]], path, columns[0]).chunks)
        labels.append(_labels(table[columns[1]], path, columns[1]))
        names.extend(f"{path} row {i}" for i in range(table.num_rows))
        ids.extend(f"{path.name} row {i}" for i in range(table.num_rows))
        classes.add(_class_names(table.schema, columns[1]))
        provenance[path.name] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
    if len(classes) > 1:
        raise OfframpError(f"{split} files in {root} name other classes; fetch {fetch} again")
    if not names:
        raise OfframpError(f"{split} files in {root} hold no images; fetch {fetch} again")
    images = Encoded(pa.chunked_array(files), tuple(names), tuple(ids))
    return RawSplit(images, torch.cat(labels)), classes.pop(), provenance


def _shards(root: Path, split: str, fetch: str) -> list[Path]:
    layout = f"{split}-*.parquet"
    if not root.is_dir():
        raise OfframpError(
            f"there is no folder {root}; fetch {fetch} so that it holds train-*.parquet and "
            "test-*.parquet, or set data.root"
        )
    for folder in FOLDERS:
        found = sorted((root / folder).glob(layout))
        if found:
            break
    else:
        raise OfframpError(f"{root} holds no {layout}; fetch {fetch} into it, or set data.root")
    for path in found:
        tree.check_link(root, path)
    total = re.search(r"-of-(\d+)\.parquet$", found[0].name)
    if total and int(total[1]) != len(found):
        raise OfframpError(
            f"{found[0].parent} holds {len(found)} of {int(total[1])} {layout} files; "
            f"fetch {fetch} again"
        )
    return found


def _read_table(path: Path, columns: tuple[str, str]) -> Any:
    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            for column, key in zip(columns, ("image_column", "label_column"), strict=True):
                if column not in present:
                    raise OfframpError(
                        f"{path} has no column '{column}'; set data.{key} to one of {', '.join(present)}"
                    )
            return file.read(columns=list(columns))
    except OfframpError:
        raise
    except Exception as error:  # pyarrow raises whatever it likes on damaged bytes
        reason = in_line(error)
        raise OfframpError(f"{path} is no readable Parquet file ({reason}); fetch it again") from error


def _image_bytes(column: Any, path: Path, name: str) -> Any:
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise OfframpError(
            f"{path}: column '{name}' is {column.type}, not images; set data.image_column"
        )
    if column.null_count:
        raise OfframpError(
            f"{path}: column '{name}' lacks the bytes of {column.null_count} images; "
            "use files with the images embedded"
        )
    return column.cast(pa.large_binary())  # plain binary overflows at 2 GiB


def _labels(column: Any, path: Path, name: str) -> Tensor:
    if not pa.types.is_integer(column.type) or column.null_count:
        raise OfframpError(
            f"{path}: column '{name}' is {column.type} with {column.null_count} empty rows, not a "
            "class number in every row; set data.label_column"
        )
    return torch.tensor(column.to_numpy(), dtype=torch.int64)


def _class_names(schema: Any, label_column: str) -> tuple[str, ...]:
    """The names that the hub's libraries leave in the schema; empty where there are none."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label_column]["names"])
    except (KeyError, TypeError, ValueError):
        return ()
