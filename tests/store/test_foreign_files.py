"""Files that somebody else made to harm: pipes, devices, files of any size, Parquet that unpacks to any
size. A reader that waits for a pipe is ended by the time limit of every test."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_kit import node
from syrupy.assertion import SnapshotAssertion

from disks import sparse
from offramp import parquet
from offramp.api.results import stats
from offramp.data import split_file
from offramp.files import TABLE, read_regular, read_regular_text
from offramp.hashing import file_digest, with_seal
from offramp.policy import stage_times
from offramp.policy.policy import Policy
from offramp.store import pack, sealed
from offramp.store.store import Store
from offramp.study.spec import yaml_lines
from wording import refusal

PACK = Path(__file__).parents[2] / "docs" / "results" / "cifar10-deploy"


def device(path: Path) -> None:
    path.symlink_to(os.devnull)


HARM = (os.mkfifo, device, sparse)
READERS: dict[str, Callable[[Path], object]] = {
    "study.yaml": lambda path: yaml_lines.text_of(path, "no such study"),
    "policy.json": Policy.load,
    "times.json": stage_times.read,
    "splits.json": split_file.read,
    "trials.json": lambda path: pack.read(path.parent),
    "table.csv": lambda path: stats.read(path, "value"),
    "table.parquet": lambda path: stats.read(path, "value"),
}


@pytest.mark.parametrize("harm", HARM, ids=["pipe", "device", "sparse"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_of_its_kind_is_not_read(
    name: str, harm: Callable[[Path], None], tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    harm(tmp_path / name)
    line = refusal(READERS[name], tmp_path / name)
    assert name in line and ";" in line  # and a remedy
    assert line == snapshot


def test_a_plain_file_is_read_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("\ufeffä\r\nb".encode())
    assert read_regular(path, TABLE) == path.read_bytes()
    assert read_regular(path, path.stat().st_size) == path.read_bytes()  # the most that it may have
    assert read_regular_text(path, TABLE, "utf-8-sig") == path.read_text(encoding="utf-8-sig")
    with pytest.raises(OSError, match="at most 7 B"):
        read_regular(path, path.stat().st_size - 1)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path, TABLE)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none", TABLE)


def test_a_pipe_in_place_of_the_version_of_a_store_is_not_waited_for(
    store: Store, snapshot: SnapshotAssertion
) -> None:
    node(store)
    (store.root / "store.json").unlink()
    os.mkfifo(store.root / "store.json")
    assert refusal(Store, store.root) == snapshot


def plain() -> pa.Table:
    lists = pa.array([["a", "b"], [], None])
    structs = pa.array([{"n": 1, "s": "x"}, None, {"n": 2, "s": None}])
    names = pa.array(["p", "q", "p"]).dictionary_encode()
    return pa.table({"value": [1.0, None, 3.0], "lists": lists, "structs": structs, "names": names})


def often(text: pa.Array) -> pa.Array:
    """A text so often that it takes more than a table should."""
    indices = np.zeros(2 * parquet.BYTES // text.nbytes, np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(indices), text)


def many_cells() -> pa.Array:
    return pa.nulls(parquet.CELLS + 1, pa.bool_())


def long_texts() -> pa.Array:
    return often(pa.array(["x" * (parquet.BYTES // 512)]))


LARGE: dict[str, Callable[[], pa.Array]] = {
    "many_cells": many_cells,
    "long_lists": lambda: pa.ListArray.from_arrays([0, parquet.CELLS + 1], many_cells()),
    "long_texts": long_texts,
    "long_texts_inside": lambda: pa.StructArray.from_arrays([long_texts()], ["text"]),
    "long_bytes": lambda: often(
        pa.array([bytes(parquet.BYTES // 512)], pa.binary(parquet.BYTES // 512))
    ),
}


def small(values: pa.Array) -> bytes:
    """A file that does not say that its texts were a dictionary, so that readers unpack it."""
    file = io.BytesIO()
    pq.write_table(pa.table({"value": values}), file, store_schema=False, compression="zstd")
    return file.getvalue()


@pytest.mark.parametrize("make", LARGE.values(), ids=LARGE)
def test_a_small_parquet_that_unpacks_to_a_large_table(
    make: Callable[[], pa.Array],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: SnapshotAssertion,
) -> None:
    monkeypatch.setattr(parquet, "CELLS", 100_000)  # so that making it takes little too
    monkeypatch.setattr(parquet, "BYTES", 2**22)
    data = small(make())
    assert len(data) < 20_000
    (tmp_path / "table.parquet").write_bytes(data)
    assert refusal(stats.read, tmp_path / "table.parquet", "value") == snapshot


def test_a_parquet_in_a_pack_that_unpacks_to_a_large_table(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    for name in pack.FILES:
        (tmp_path / name).write_bytes((PACK / name).read_bytes())
    assert pack.read(tmp_path).trials()
    (tmp_path / "table.parquet").write_bytes(small(long_texts()))
    fields = json.loads((tmp_path / "trials.json").read_bytes())
    fields["files"]["table.parquet"] = file_digest(tmp_path / "table.parquet")
    (tmp_path / "trials.json").write_text(json.dumps(with_seal(fields)))
    assert refusal(pack.read, tmp_path) == snapshot
    assert sealed.read_json(tmp_path / "trials.json")  # it is the table that is refused


def test_a_plain_parquet_is_read_as_ever(tmp_path: Path) -> None:
    plain_file = tmp_path / "plain.parquet"
    pq.write_table(plain(), plain_file)
    assert parquet.read(plain_file.read_bytes()).equals(pq.read_table(plain_file))
    pd.testing.assert_frame_equal(stats.read(plain_file, "value"), pd.read_parquet(plain_file))
    empty = small(pa.array([], pa.string()))
    assert parquet.read(empty).num_rows == 0
