"""Hugging Face's `datasets`, offline: sets made here and saved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import as_tensor, counts, noise, read, save
from PIL import Image

from refusal import refuses

datasets = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")
    datasets.disable_progress_bars()
    monkeypatch.setenv("OFFRAMP_DATA", str(tmp_path / "shared"))  # is for sets that need a folder


def rows(n: int, seed: int, **columns: Any) -> Any:
    made = {"picture": [Image.fromarray(noise(100 * seed + i)) for i in range(n)]}
    features: dict[str, Any] = {"picture": datasets.Image()}
    for name, feature in columns.items():
        words = getattr(feature, "names", ["a", "b"])
        text = getattr(feature, "dtype", "") == "string"
        made[name] = [words[i % 2] if text else i % 2 for i in range(n)]
        features[name] = feature
    return datasets.Dataset.from_dict(made, features=datasets.Features(features))


def saved(root: Path, splits: dict[str, int], **columns: Any) -> Path:
    columns = columns or {"animal": datasets.ClassLabel(names=["cat", "dog"])}
    made = {name: rows(n, i, **columns) for i, (name, n) in enumerate(splits.items())}
    datasets.DatasetDict(made).save_to_disk(root)
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


def test_columns_given(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=["cat", "dog"])
    root = saved(
        tmp_path / "set",
        {"train": 60},
        fine=label,
        word=datasets.Value("string"),
        number=datasets.Value("int64"),
        coarse=label,
    )
    refuses(r"2 columns are of the type ClassLabel; set data\.label_column to one of", read, "hub", root)
    assert read("hub", root, label_column="fine").classes == ("cat", "dog")
    assert read("hub", root, label_column="word").classes == ("a", "b")
    assert read("hub", root, label_column="number").classes == ("0", "1")
    refuses("no column 'wrod'; did you mean 'word'", read, "hub", root, label_column="wrod")
    refuses(r"holds no class numbers", read, "hub", root, label_column="picture")


def test_images_that_are_files_beside_the_table(tmp_path: Path) -> None:
    paths = [str(save(tmp_path / f"{i}.png", noise(i))) for i in range(40)]
    features = datasets.Features(picture=datasets.Image(), y=datasets.ClassLabel(names=["a", "b"]))
    made = datasets.Dataset.from_dict({"picture": paths, "y": [0, 1] * 20}, features=features)
    datasets.DatasetDict(train=made, test=made).save_to_disk(tmp_path / "set")
    assert torch.equal(read("hub", tmp_path / "set").test.images[7], as_tensor(noise(7)))


def test_a_set_by_name_comes_from_what_is_at_hand(tmp_path: Path) -> None:
    for i in range(40):
        save(tmp_path / "repo/train" / "ab"[i % 2] / f"{i}.png", noise(i))
    data = read("hub", repo=str(tmp_path / "repo"))
    assert data.classes == ("a", "b") and sum(counts(data).values()) == 40
    refuses(
        r"nobody/nothing cannot be loaded .*; correct the name, or fetch",
        read,
        "hub",
        repo="nobody/nothing",
    )


def test_damaged_images_are_named_by_row(tmp_path: Path) -> None:
    features = datasets.Features(picture=datasets.Image(), y=datasets.ClassLabel(names=["a", "b"]))
    files = [{"bytes": save(tmp_path / "a.png", noise(i)).read_bytes(), "path": None} for i in range(40)]
    files[3] = {"bytes": b"rubbish", "path": None}
    made = datasets.Dataset.from_dict({"picture": files, "y": [0, 1] * 20}, features=features)
    datasets.DatasetDict(train=made, test=made).save_to_disk(tmp_path / "set")
    refuses(r"(test|train) row 3 is no readable image", read, "hub", tmp_path / "set")
    data = read("hub", tmp_path / "set", on_error="skip")
    assert len(data.test) == 39


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = saved(tmp_path / "set", {"train": 60})
    refuses(r"needs data\.repo, a name on the hub, or data\.root", read, "hub")
    refuses(
        r"data\.train_split: there is no split 'trian'; did you mean 'train'",
        read,
        "hub",
        root,
        train_split="trian",
    )
    refuses(r"data\.test_split: there is no split 'test'", read, "hub", root, test_split="test")
    refuses("cannot be loaded", read, "hub", tmp_path / "none")
    monkeypatch.setitem(sys.modules, "datasets", None)
    refuses(r"pip install 'offramp\[hub\]'", read, "hub", root)


@pytest.mark.parametrize("options", [{"image_column": "animal"}, {"label_column": "picture"}])
def test_columns_of_another_kind(tmp_path: Path, options: dict[str, str]) -> None:
    root = saved(tmp_path / "set", {"train": 40})
    refuses("column '(animal|picture)' .*; set data.", read, "hub", root, **options)


@pytest.mark.parametrize("file", ["*.arrow", "dataset_info.json", "state.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff" * 700])
def test_what_is_no_saved_set(tmp_path: Path, file: str, content: bytes) -> None:
    root = saved(tmp_path / "set", {"train": 40})
    next((root / "train").glob(file)).write_bytes(content)
    refuses("cannot be loaded", read, "hub", root)
