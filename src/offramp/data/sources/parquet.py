"""Folders of Parquet files in the form of the Hugging Face hub.

`train-00000-of-00002.parquet` … and `test-*.parquet`; an image column (a struct of `bytes` and
`path`, or plain bytes), an integer label column, class names in the schema's `huggingface` entry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from offramp.data.images.files import EncodedImages, check_link
from offramp.data.raw import RawData, RawSplit
from offramp.errors import OfframpError, in_line
from offramp.files import ARRAYS, check_regular
from offramp.hashing import file_digest
from offramp.units import size

LARGE, RATIO = 2**30, 20  # images of more bytes, packed more tightly, are a trap and no data
ROWS, FEW = 64, 10**6  # that are unpacked at a time; in a file, however short
FOLDERS = (".", "data", "plain_text")  # where the hub's repositories keep their shards


def hashes(paths: Iterable[Path]) -> dict[str, Any]:
    """What provenance says of files: their bytes and SHA-256, by name."""
    return {p.name: {"bytes": p.stat().st_size, "sha256": file_digest(p)} for p in paths}


def read(root: Path, image_column: str, label_column: str, fetch: str) -> RawData:
    """The train and test split of a folder.

    Args:
        root: The folder.
        image_column: Its images.
        label_column: Its class numbers.
        fetch: Where to get the files, for the error.

    Raises:
        OfframpError: for a missing folder or shard, a file that is not Parquet, a column that is absent
            or of the wrong kind, and class names that differ between files.
    """
    files: dict[str, Any] = {}
    parts: dict[str, RawSplit] = {}
    classes: set[tuple[str, ...]] = set()
    for split in ("train", "test"):
        shards = _shards(root, split, fetch)
        tables = {path: _table(path, image_column, label_column) for path in shards}
        classes |= {_class_names(table.schema, label_column) for table in tables.values()}
        if len(classes) > 1:
            raise OfframpError(f"{split} files in {root} name other classes; fetch {fetch} again")
        if not any(table.num_rows for table in tables.values()):
            raise OfframpError(f"{split} files in {root} hold no images; fetch {fetch} again")
        files |= hashes(shards)
        parts[split] = _split(tables, image_column, label_column)
    provenance = {"root": str(root), "files": files}
    return RawData(parts["train"], parts["test"], classes.pop(), provenance=provenance)


def _split(tables: dict[Path, Any], image_column: str, label_column: str) -> RawSplit:
    images = [_image_bytes(table[image_column], path, image_column) for path, table in tables.items()]
    labels = [_labels(table[label_column], path, label_column) for path, table in tables.items()]
    places = [(path, i) for path, table in tables.items() for i in range(table.num_rows)]
    column = pa.chunked_array([chunk for part in images for chunk in part.chunks], pa.large_binary())
    names = tuple(f"{path} row {i}" for path, i in places)
    ids = tuple(f"{path.name} row {i}" for path, i in places)
    return RawSplit(EncodedImages(partial(_row, column), names, ids), torch.cat(labels))


def _row(column: Any, row: int) -> bytes:
    file: bytes = column[row].as_py()
    return file


def _shards(root: Path, split: str, fetch: str) -> list[Path]:
    layout = f"{split}-*.parquet"
    if not root.is_dir():
        raise OfframpError(
            f"there is no folder {root}; fetch {fetch} so that it holds train-*.parquet and "
            "test-*.parquet, or set data.root"
        )
    shards = next((s for f in FOLDERS if (s := sorted((root / f).glob(layout)))), [])
    if not shards:
        raise OfframpError(f"{root} holds no {layout}; fetch {fetch} into it, or set data.root")
    for path in shards:
        check_link(root, path)
    total = re.search(r"-of-(\d+)\.parquet$", shards[0].name)
    if total and int(total[1]) != len(shards):
        raise OfframpError(
            f"{shards[0].parent} holds {len(shards)} of {int(total[1])} {layout} files; "
            f"fetch {fetch} again"
        )
    return shards


def _table(path: Path, image_column: str, label_column: str) -> Any:
    """The two columns of a file, read a few rows at a time: what is packed may unpack to any size."""
    columns, batches = [*dict.fromkeys((image_column, label_column))], []
    try:
        check_regular(path, ARRAYS)
        length = path.stat().st_size
        room = most = max(LARGE, RATIO * length)
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            present = file.schema_arrow.names
            for key, column in (("image_column", image_column), ("label_column", label_column)):
                if column not in present:
                    raise OfframpError(
                        f"{path} has no column '{column}'; set data.{key} to one of {', '.join(present)}"
                    )
            if (rows := file.metadata.num_rows) > max(FEW, length):
                raise OfframpError(f"{path} has {rows:,} rows in {size(length)}; fetch it again")
            for batch in file.iter_batches(ROWS, columns=columns):
                batches.append(batch.select(columns))
                room -= batch.nbytes
                if room < 0:
                    raise OfframpError(f"{path} unpacks to more than {size(most)}; fetch it again")
            schema = file.schema_arrow
            fields = [schema.field(column) for column in columns]
            return pa.Table.from_batches(batches, pa.schema(fields, schema.metadata))
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
