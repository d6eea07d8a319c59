"""Hugging Face's `datasets`, offline: sets made here and saved."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import as_tensor, counts, noise, read, refused, save
from PIL import Image
from syrupy.assertion import SnapshotAssertion

datasets = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")
    datasets.disable_progress_bars()
    monkeypatch.setenv("OFFRAMP_DATA", str(tmp_path / "shared"))  # is for sets that need a folder


def rows(n: int, seed: int, **columns: Any) -> Any:
    cells = {"picture": [Image.fromarray(noise(100 * seed + i)) for i in range(n)]}
    features: dict[str, Any] = {"picture": datasets.Image()}
    for name, feature in columns.items():
        words = getattr(feature, "names", ["a", "b"])
        text = getattr(feature, "dtype", "") == "string"
        cells[name] = [words[i % 2] if text else i % 2 for i in range(n)]
        features[name] = feature
    return datasets.Dataset.from_dict(cells, features=datasets.Features(features))


def saved(root: Path, splits: dict[str, int], **columns: Any) -> Path:
    columns = columns or {"animal": datasets.ClassLabel(names=["cat", "dog"])}
    tables = {name: rows(n, i, **columns) for i, (name, n) in enumerate(splits.items())}
    datasets.DatasetDict(tables).save_to_disk(root)
    return root


def test_a_saved_set_with_columns_found(tmp_path: Path) -> None:
    root = saved(tmp_path / "set", {"train": 60, "validation": 8, "test": 10})
    data = read("hub", root)
    assert data.classes == ("cat", "dog")
    assert counts(data) == {"train": 46, "validation": 8, "calibration": 14, "test": 10}
    assert torch.equal(data.test.images, torch.stack([as_tensor(noise(200 + i)) for i in range(10)]))
    assert data.test.labels.tolist() == [0, 1] * 5
    assert read("hub", root, size=4, channels=1).shape == (1, 4, 4)
    assert len(read("hub", root, test_split="validation").test) == 8


def test_columns_given(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    label = datasets.ClassLabel(names=["cat", "dog"])
    root = saved(
        tmp_path / "set",
        {"train": 60},
        fine=label,
        word=datasets.Value("string"),
        number=datasets.Value("int64"),
        coarse=label,
    )
    assert refused(read, "hub", root) == snapshot
    assert read("hub", root, label_column="fine").classes == ("cat", "dog")
    assert read("hub", root, label_column="word").classes == ("a", "b")
    assert read("hub", root, label_column="number").classes == ("0", "1")
    assert refused(read, "hub", root, label_column="wrod") == snapshot
    assert refused(read, "hub", root, label_column="picture") == snapshot


def test_images_that_are_files_beside_the_table(tmp_path: Path) -> None:
    paths = [str(save(tmp_path / f"{i}.png", noise(i))) for i in range(40)]
    features = datasets.Features(picture=datasets.Image(), y=datasets.ClassLabel(names=["a", "b"]))
    table = datasets.Dataset.from_dict({"picture": paths, "y": [0, 1] * 20}, features=features)
    datasets.DatasetDict(train=table, test=table).save_to_disk(tmp_path / "set")
    assert torch.equal(read("hub", tmp_path / "set").test.images[7], as_tensor(noise(7)))


def test_a_set_by_name_comes_from_what_is_at_hand(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    for i in range(40):
        save(tmp_path / "repo/train" / "ab"[i % 2] / f"{i}.png", noise(i))
    data = read("hub", repo=str(tmp_path / "repo"))
    assert data.classes == ("a", "b") and sum(counts(data).values()) == 40
    assert refused(read, "hub", repo="nobody/nothing") == snapshot


def test_a_row_names_no_file_outside_of_its_set(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    """Rows come from others, and may name whatever this machine has."""
    files = [str(save(tmp_path / "mine" / f"{i}.png", noise(i))) for i in range(40)]
    features = datasets.Features(picture=datasets.Image(), y=datasets.ClassLabel(names=["a", "b"]))
    table = datasets.Dataset.from_dict({"picture": files, "y": [0, 1] * 20}, features=features)
    (tmp_path / "repo").mkdir()
    stored = table.cast_column("picture", datasets.Image(decode=False))
    for split in ("train", "test"):
        stored.to_parquet(tmp_path / f"repo/{split}.parquet")
    assert refused(read, "hub", repo=str(tmp_path / "repo")) == snapshot


def test_damaged_images_are_named_by_row(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    features = datasets.Features(picture=datasets.Image(), y=datasets.ClassLabel(names=["a", "b"]))
    files = [{"bytes": save(tmp_path / "a.png", noise(i)).read_bytes(), "path": None} for i in range(40)]
    files[3] = {"bytes": b"rubbish", "path": None}
    table = datasets.Dataset.from_dict({"picture": files, "y": [0, 1] * 20}, features=features)
    datasets.DatasetDict(train=table, test=table).save_to_disk(tmp_path / "set")
    assert refused(read, "hub", tmp_path / "set") == snapshot
    data = read("hub", tmp_path / "set", on_error="skip")
    assert len(data.test) == 39


def test_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    root = saved(tmp_path / "set", {"train": 60})
    assert refused(read, "hub") == snapshot
    assert refused(read, "hub", root, train_split="trian") == snapshot
    assert refused(read, "hub", root, test_split="test") == snapshot
    assert refused(read, "hub", tmp_path / "none") == snapshot
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refused(read, "hub", root) == snapshot


@pytest.mark.parametrize("option", ["image_column", "label_column"])
def test_columns_of_another_kind(tmp_path: Path, option: str) -> None:
    root = saved(tmp_path / "set", {"train": 40})
    other = {"image_column": "animal", "label_column": "picture"}[option]
    line = refused(read, "hub", root, **{option: other})
    assert f"column '{other}'" in line and line.endswith(f"set data.{option}")


@pytest.mark.parametrize("file", ["*.arrow", "dataset_info.json", "state.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff" * 700], ids=["empty", "list", "odd"])
def test_what_is_no_saved_set(tmp_path: Path, file: str, content: bytes) -> None:
    root = saved(tmp_path / "set", {"train": 40})
    next((root / "train").glob(file)).write_bytes(content)
    assert "set cannot be loaded (REASON)" in refused(read, "hub", root)
