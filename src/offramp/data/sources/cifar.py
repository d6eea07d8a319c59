"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): 32 px color images of 10 and of 100 classes.

They come as the official binary version: records of one or two label bytes and 3,072 pixels, in `.bin`
files or in the `.tar.gz` of them. Or as Parquet files of the Hugging Face hub: an image column (a struct
of `bytes` and `path`, or plain bytes), an integer label column, class names in the schema's
`huggingface` entry. The official Python version is pickled, and is never read.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from offramp.data.images.files import EncodedImages
from offramp.data.raw import DataSource, DeclaredCounts, RawData, RawSplit, fixed_counts
from offramp.errors import OfframpError, in_line
from offramp.files import ARRAYS, check_regular
from offramp.hashing import file_digest, from_text
from offramp.units import size

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
FETCH = (
    "the Parquet files of https://huggingface.co/datasets/uoft-cs/{0} (train-*.parquet and "
    f"test-*.parquet), or {{1}} of {PAGE}"
)
IMAGES = (50_000, 10_000)
SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
LARGEST = 2**30  # bytes of a file in the archive, seven times the official ones
LARGE, RATIO = 2**30, 20  # images of more bytes, packed more tightly, are a trap and no data
ROWS, FEW = 64, 10**6  # of Parquet, that are unpacked at a time; in a file, however short
FOLDERS = (".", "data", "plain_text")  # where the hub's repositories keep their shards
SAME_COUNTS = frozenset({"image_column", "label_column", "official"})


@dataclass(frozen=True)
class BinaryLayout:
    """The official binary version of one set."""

    name: str  # of the data set, as its authors write it
    archive: str  # what it comes in
    folder: str  # what that unpacks to
    train: tuple[str, ...]  # names of the files of training images
    test: tuple[str, ...]  # names of the files of test images
    names: str  # the file of class names
    labels: int  # label bytes of a record
    label: int  # which of them counts

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, *self.test, self.names)

    @property
    def fetch(self) -> str:
        return FETCH.format(self.name.lower().replace("-", ""), self.archive)


TEN = BinaryLayout(
    name="CIFAR-10",
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test=("test_batch.bin",),
    names="batches.meta.txt",
    labels=1,
    label=0,
)
HUNDRED = BinaryLayout(
    name="CIFAR-100",
    archive="cifar-100-binary.tar.gz",
    folder="cifar-100-binary",
    train=("train.bin",),
    test=("test.bin",),
    names="fine_label_names.txt",
    labels=2,
    label=1,
)
TWENTY = replace(HUNDRED, names="coarse_label_names.txt", label=0)


def cifar10(
    root: Path, image_column: str = "img", label_column: str = "label", official: bool = True
) -> RawData:
    """A folder with train-*.parquet and test-*.parquet, or with the binary version, packed or not.

    Args:
        root: The folder.
        image_column: Of the Parquet files.
        label_column: Of the Parquet files.
        official: Whether other counts than 50,000 and 10,000 images are refused; with `false` a smaller
            or relabeled folder works too, and counts and classes are taken as they come.

    Raises:
        OfframpError: naming the file that is missing or wrong.
    """
    return _read(root, TEN, (image_column, label_column), official)


def cifar100(
    root: Path,
    coarse: bool = False,
    image_column: str = "img",
    label_column: str | None = None,
    official: bool = True,
) -> RawData:
    """A folder with train-*.parquet and test-*.parquet, or with the binary version, packed or not.

    Args:
        root: The folder.
        coarse: Whether classes are the 20 coarse ones.
        image_column: Of the Parquet files.
        label_column: Of the Parquet files; by default `fine_label` or `coarse_label`.
        official: Whether other counts than 50,000 and 10,000 images are refused.

    Raises:
        OfframpError: naming the file that is missing or wrong.
    """
    label = label_column or ("coarse_label" if coarse else "fine_label")
    return _read(root, TWENTY if coarse else HUNDRED, (image_column, label), official)


def _read(root: Path, layout: BinaryLayout, columns: tuple[str, str], official: bool) -> RawData:
    """Whichever form lies in `root`. columns: of images and labels, in Parquet."""
    paths = _binary_files(root, layout)
    raw = _from_binary(root, paths, layout) if paths else _from_parquet(root, *columns, layout.fetch)
    counts = (len(raw.train.labels), len(raw.test.labels) if raw.test else 0)
    if official and counts != IMAGES:
        raise OfframpError(
            f"{root} holds {counts[0]:,} training and {counts[1]:,} test images where {layout.name} has "
            "50,000 and 10,000; fetch it again, or set data.official: false to take it as it is"
        )
    return raw


def _binary_files(root: Path, layout: BinaryLayout) -> list[Path]:
    """The `.bin` files and the file of class names, or the one archive of them; else empty.

    Raises OfframpError where only the pickled version is there, or a part of the binary one.
    """
    if not root.is_dir():
        return []
    for folder in (root, root / layout.folder):
        present = [folder / name for name in layout.files if (folder / name).is_file()]
        if any(path.suffix == ".bin" for path in present):
            _refuse_absent(folder, layout, {path.name for path in present})
            return present
    if (root / layout.archive).is_file():
        return [root / layout.archive]
    pickled = [*root.glob("cifar-10*-python*"), *root.glob("cifar-10*-batches-py")]
    if pickled and not any(any((root / f).glob("*.parquet")) for f in FOLDERS):
        raise OfframpError(
            f"{pickled[0]} is the pickled version, which can run code and is never read; fetch the "
            f"binary version, {layout.archive}, of {PAGE}"
        )
    return []


def _refuse_absent(place: Path, layout: BinaryLayout, present: set[str]) -> None:
    if absent := next((name for name in layout.files if name not in present), None):
        raise OfframpError(f"{place} lacks {absent}; fetch {layout.archive} of {PAGE} again")


def _from_binary(root: Path, paths: list[Path], layout: BinaryLayout) -> RawData:
    for path in paths:
        try:
            check_regular(path, LARGEST)
        except OSError as error:
            raise OfframpError(f"{path} cannot be read ({error.strerror}); fetch it again") from error
    packed = paths[0].name == layout.archive
    contents = _unpacked(paths[0], layout) if packed else {p.name: p.read_bytes() for p in paths}
    try:
        classes = tuple(contents[layout.names].decode().split())
    except UnicodeDecodeError as error:
        raise OfframpError(f"{root}: {layout.names} is no text; fetch it again") from error
    train, test = (_records(root, contents, names, layout) for names in (layout.train, layout.test))
    return RawData(train, test, classes, provenance={"root": str(root), "files": _hashes(paths)})


def _unpacked(path: Path, layout: BinaryLayout) -> dict[str, bytes]:
    """The files that count, read out of the archive; nothing is written."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if name not in layout.files or not member.isreg():  # links may go round in circles
                    continue
                if member.size > LARGEST:
                    raise ValueError(f"{name} is to have {size(member.size)}")
                if file := archive.extractfile(member):
                    contents[name] = file.read()
            end = archive.fileobj  # gzip's checksum stands there, and only who reads it checks it
            while end is not None and end.read(2**20):
                if end.tell() > LARGEST:
                    raise ValueError(f"it unpacks to more than {size(LARGEST)}")
    except Exception as error:  # tar, gzip, zlib and lzma raise whatever they like on damaged bytes
        reason = in_line(error)  # tarfile takes a line for each compression it tries
        raise OfframpError(f"{path} is no readable archive ({reason}); fetch it again") from error
    _refuse_absent(path, layout, set(contents))
    return contents


def _records(
    root: Path, contents: Mapping[str, bytes], names: tuple[str, ...], layout: BinaryLayout
) -> RawSplit:
    length = layout.labels + PIXELS
    for name in names:
        if not contents[name] or len(contents[name]) % length:
            raise OfframpError(
                f"{root}: {name} has {len(contents[name])} bytes, not records of {length}; "
                "fetch it again"
            )
    data = b"".join(contents[name] for name in names)
    records = torch.from_numpy(np.frombuffer(data, np.uint8).reshape(-1, length).copy())
    images = records[:, layout.labels :].reshape(-1, *SHAPE)
    return RawSplit(images, records[:, layout.label].to(torch.int64))


# Parquet


def _hashes(paths: Iterable[Path]) -> dict[str, Any]:
    """What provenance says of files: their bytes and SHA-256, by name."""
    return {p.name: {"bytes": p.stat().st_size, "sha256": file_digest(p)} for p in paths}


def _from_parquet(root: Path, image_column: str, label_column: str, fetch: str) -> RawData:
    """The train and test split of a folder. fetch: where to get the files, for the error."""
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
        files |= _hashes(shards)
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
        features = from_text(schema.metadata[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label_column]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


CIFAR10 = DataSource(
    cifar10,
    TEN.fetch,
    fixed_counts(DeclaredCounts((5_000,) * 10, (1_000,) * 10, SHAPE, SAME_COUNTS)),
)
CIFAR100 = DataSource(
    cifar100,
    HUNDRED.fetch,
    fixed_counts(DeclaredCounts((500,) * 100, (100,) * 100, SHAPE, SAME_COUNTS)),
)
