"""Split files: saved, given, and refused where the images are not the same."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import digests, noise, read, refused, save, tree
from syrupy.assertion import SnapshotAssertion

from offramp.data import DataSpec, load, save_splits


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tree(tmp_path / "pets")


@pytest.fixture
def saved(root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "splits.json"
    save_splits(DataSpec("folder", root=str(root), split_seed=3, train_images=20), path)
    return path


def test_a_split_file_repeats_a_split_elsewhere(root: Path, saved: Path, tmp_path: Path) -> None:
    first = read("folder", root, split_seed=3, train_images=20)
    shutil.copytree(root, tmp_path / "moved")
    again = read("folder", tmp_path / "moved", split_file=str(saved))
    assert digests(again) == digests(first)
    other = read("folder", root)
    assert other.train.digest != first.train.digest
    assert str(tmp_path) not in saved.read_text()
    assert read("folder", root, split_file=str(saved), size=4, channels=1).shape == (1, 4, 4)


def test_validation_may_be_test(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    save_splits(DataSpec("folder", root=str(root), validation="test"), str(path))
    data = read("folder", root, split_file=str(path))
    assert data.validation is data.test
    assert digests(data) == digests(read("folder", root, validation="test"))


def test_sources_without_files_number_their_rows(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    path = tmp_path / "splits.json"
    save_splits(DataSpec("digits", split_seed=5, test_images=40), path)
    splits = json.loads(path.read_text())["splits"]
    assert len(splits["test"]) == 40 and next(iter(splits["test"])).startswith("test row ")
    data = load(DataSpec("digits", split_file=str(path)))
    assert digests(data) == digests(load(DataSpec("digits", split_seed=5, test_images=40)))
    row = next(iter(splits["train"]))
    splits["train"][row] = splits["test"][next(iter(splits["test"]))]
    path.write_text(json.dumps({"version": 1, "splits": splits}))
    assert refused(load, DataSpec("digits", split_file=str(path))) == snapshot


def test_changed_and_absent_images_are_named(
    root: Path, saved: Path, snapshot: SnapshotAssertion
) -> None:
    path = root / "test/cat/p0_0.png"
    content = path.read_bytes()
    save(path, noise(999))
    assert refused(read, "folder", root, split_file=str(saved)) == snapshot
    path.write_bytes(content)
    read("folder", root, split_file=str(saved))
    path.unlink()
    assert refused(read, "folder", root, split_file=str(saved)) == snapshot


def test_new_images_change_nothing(root: Path, saved: Path) -> None:
    before = digests(read("folder", root, split_file=str(saved)))
    save(root / "train/cat/a_new_one.png", noise(999))
    assert digests(read("folder", root, split_file=str(saved))) == before


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "two_splits": lambda splits: splits["train"].update(splits["calibration"]),
    "mixed": lambda splits: splits["train"].update([splits["test"].popitem()]),
    "empty": lambda splits: splits["train"].clear(),
    "lacking": lambda splits: splits.pop("calibration"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_wrong_split_file(
    root: Path, saved: Path, change: Callable[[dict[str, Any]], object], snapshot: SnapshotAssertion
) -> None:
    document = json.loads(saved.read_text())
    change(document["splits"])
    saved.write_text(json.dumps(document))
    assert refused(read, "folder", root, split_file=str(saved)) == snapshot


def test_lists_in_lists_are_no_split_file(root: Path, saved: Path) -> None:
    saved.write_text("[" * 200_000)
    assert "is no split file" in refused(read, "folder", root, split_file=str(saved))


def test_no_split_file(root: Path, saved: Path, snapshot: SnapshotAssertion) -> None:
    assert refused(read, "folder", root, split_file=str(saved.with_name("none.json"))) == snapshot
    saved.write_text("{")
    assert refused(read, "folder", root, split_file=str(saved)) == snapshot


def test_a_group_in_two_splits_is_refused(root: Path, saved: Path, snapshot: SnapshotAssertion) -> None:
    read("folder", root, split_file=str(saved))
    assert refused(read, "folder", root, split_file=str(saved), group=r"p\d") == snapshot


def test_damaged_images_are_skipped_with_a_split_file_too(root: Path, saved: Path) -> None:
    splits = json.loads(saved.read_text())["splits"]
    broken = root / next(iter(splits["train"]))
    broken.write_bytes(b"")
    data = read("folder", root, split_file=str(saved), on_error="skip")
    assert len(data.train) == len(splits["train"]) - 1
    assert torch.equal(data.test.labels, read("folder", root, on_error="skip").test.labels)
