"""Parquet that somebody else may have written: judged before it is unpacked, since a few kilobytes may
unpack to any size."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import FileMetaData, ParquetFile

from offramp.units import size

CELLS = 50_000_000  # of all columns together: 0.4 GB as numbers, and more as texts
BYTES = 2**30  # of all texts, each as often as it stands in the table
HOLDS = {
    "text": (pa.types.is_string, pa.types.is_large_string),
    "whole numbers": (pa.types.is_integer,),
    "numbers": (pa.types.is_integer, pa.types.is_floating),
    "true or false": (pa.types.is_boolean,),
}
"""What a column may hold."""


class TooLarge(ValueError):
    """A table that takes more memory than a table should; says how much, without the file's name."""


def read(data: bytes) -> pa.Table:
    """The table in the bytes of a file, every part of it validated.

    Raises:
        TooLarge: It has more cells or bytes than are read.
        Exception: Whatever pyarrow raises on damaged bytes.
    """
    source = pa.BufferReader(data)
    file = ParquetFile(source)
    about = file.metadata
    _check_size(about)
    leaves = [about.schema.column(k) for k in range(about.num_columns)]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    # In a dictionary, a text that stands a million times takes the room of one.
    table = ParquetFile(source, read_dictionary=texts).read()
    table.validate(full=True)  # text too, which pandas decodes later
    _check_bytes(sum(_unpacked(chunk) for column in table.columns for chunk in column.chunks))
    return table.cast(file.schema_arrow)


def other_than(table: pa.Table, columns: Mapping[str, str]) -> str | None:
    """What of a table is not as it should be: a clause that says it of the file, or None.

    Args:
        table: That was read.
        columns: What each column holds, by name: of HOLDS, with `?` where some may be missing.
    """
    for name, kind in columns.items():
        if table.schema.names.count(name) != 1:
            return f"{'lacks' if name not in table.schema.names else 'has twice'} the column '{name}'"
        column, word = table.column(name), kind.removesuffix("?")
        if len(column) > column.null_count and not any(is_kind(column.type) for is_kind in HOLDS[word]):
            return f"has a column '{name}' that is not {word}"
        if column.null_count and not kind.endswith("?"):
            return f"has a column '{name}' with gaps"
    return None


def _check_size(about: FileMetaData) -> None:
    """Check what a file says of itself."""
    groups = [about.row_group(k) for k in range(about.num_row_groups)]
    counts = [sum(group.column(k).num_values for group in groups) for k in range(about.num_columns)]
    # Lists have more values than rows; a table without columns still has rows.
    cells = max(sum(counts), about.num_rows * max(1, about.num_columns))
    if cells > CELLS:
        raise TooLarge(f"it unpacks to {cells:,} cells, and at most {CELLS:,} are read")
    widths = [about.schema.column(k).length for k in range(about.num_columns)]  # 0 but of fixed bytes
    unpacked = sum(group.total_byte_size for group in groups)
    _check_bytes(max(unpacked, sum(n * width for n, width in zip(counts, widths, strict=True))))


def _check_bytes(count: int) -> None:
    if count > BYTES:
        raise TooLarge(f"it unpacks to {size(count)}, and at most {size(BYTES)} are read")


def _unpacked(array: pa.Array) -> int:
    """Bytes of an array, with each text as often as it stands in it."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _unpacked(array.storage)
    if pa.types.is_dictionary(kind):
        texts = (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())
        if kind.value_type not in texts:
            return int(array.nbytes)
        lengths = pc.take(pc.binary_length(array.dictionary), array.indices)
        return int(pc.sum(lengths).as_py() or 0)
    if pa.types.is_nested(kind):
        parts = array.flatten()  # a list of a struct's fields, an array of a list's values
        return sum(map(_unpacked, parts if isinstance(parts, list) else [parts]))
    return int(array.nbytes)
