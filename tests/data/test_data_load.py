"""load: names, subsets, hold-outs, and what may not influence what."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import counts, digests, noise, read, refused, save, tree
from syrupy.assertion import SnapshotAssertion

from offramp.data import DataSpec
from offramp.data.dataset import Data
from offramp.data.load import assemble, load
from offramp.data.notes import notes
from offramp.data.raw import RawData, RawSplit
from wording import stable


def raw(test_labels: torch.Tensor | None = None, test_value: int = 7) -> RawData:
    """400 training images that each show their own row number, and 60 test images."""
    rows = torch.arange(400)
    images = torch.stack([rows // 256, rows % 256], 1).to(torch.uint8)[:, :, None, None]
    labels = torch.arange(60) % 4 if test_labels is None else test_labels
    test = torch.full((len(labels), 2, 1, 1), test_value, dtype=torch.uint8)
    return RawData(RawSplit(images, rows % 4), RawSplit(test, labels), ("a", "b", "c", "d"))


def rows_of(data: Data, name: str) -> set[int]:
    images = data.splits[name].images[:, :, 0, 0].to(torch.int64)
    return set((images[:, 0] * 256 + images[:, 1]).tolist())


def make(source: RawData | None = None, **changes: Any) -> Data:
    return assemble(source or raw(), DataSpec("toy", **changes))


def test_labels_follow_their_images() -> None:
    data = make(train_images=100)
    for name in ("train", "validation", "calibration"):
        part = data.splits[name]
        rows = part.images[:, 0, 0, 0].to(torch.int64) * 256 + part.images[:, 1, 0, 0]
        assert torch.equal(rows % 4, part.labels)


def test_a_subset_is_taken_before_holding_out() -> None:
    data = make(train_images=100)
    parts = [rows_of(data, name) for name in ("train", "validation", "calibration")]
    assert [len(part) for part in parts] == [52, 24, 24]
    assert len(set().union(*parts)) == 100
    assert data.train.labels.bincount().tolist() == [13] * 4


def test_the_same_seed_splits_alike_whatever_was_called_before() -> None:
    first = digests(make(split_seed=5))
    torch.manual_seed(1)
    make(split_seed=6, train_images=80)
    torch.rand(3)
    assert digests(make(split_seed=5)) == first
    other = digests(make(split_seed=6))
    assert other["train"] != first["train"]
    assert other["test"] == first["test"]


def test_statistics_are_of_the_training_split_alone() -> None:
    data = make(raw(test_value=7))
    pixels = data.train.images.double() / 255
    assert torch.tensor(data.mean).allclose(pixels.mean((0, 2, 3)).float())
    assert torch.tensor(data.std).allclose(pixels.std((0, 2, 3), correction=0).float())
    everything = raw().train.images[torch.arange(400)].double() / 255
    assert data.mean[1] != pytest.approx(float(everything[:, 1].mean()), abs=1e-9)
    other = make(raw(test_value=255))
    assert (other.mean, other.std) == (data.mean, data.std)


def test_test_labels_influence_nothing_but_test() -> None:
    data = make()
    for labels in (torch.zeros(60), torch.arange(60) * 3 % 4, torch.zeros(20)):
        for test_images in (None, 10):
            other = make(raw(labels.to(torch.int64)), test_images=test_images)
            assert other.test.digest != data.test.digest
            assert (other.mean, other.std, other.classes) == (data.mean, data.std, data.classes)
            for name in ("train", "validation", "calibration"):
                assert other.splits[name].digest == data.splits[name].digest


def test_train_influences_no_test_subset() -> None:
    whole, part = make(test_images=8), make(test_images=8, train_images=100)
    assert whole.test.digest == part.test.digest


def test_validation_may_be_test_as_in_the_paper() -> None:
    usual, paper = make(), make(validation="test")
    assert paper.validation is paper.test
    assert rows_of(paper, "train") == rows_of(usual, "train") | rows_of(usual, "validation")
    assert paper.calibration.digest == usual.calibration.digest
    assert not rows_of(paper, "calibration") & rows_of(paper, "train")


def test_only_rows_that_are_used_are_read_and_each_once() -> None:
    read_rows: list[int] = []

    class Lazy:
        def __len__(self) -> int:
            return 400

        def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
            read_rows.extend(rows.tolist())
            return torch.zeros(len(rows), 1, 2, 2, dtype=torch.uint8)

    test = RawSplit(torch.zeros(8, 1, 2, 2, dtype=torch.uint8), torch.arange(8) % 4)
    make(RawData(RawSplit(Lazy(), torch.arange(400) % 4), test), train_images=100)
    assert len(read_rows) == len(set(read_rows)) == 100


def test_a_source_that_gives_no_tensor_is_refused(snapshot: SnapshotAssertion) -> None:
    images: Any = [[0]] * 40
    assert refused(RawSplit, images, torch.zeros(39, dtype=torch.int64)) == snapshot
    numpy = torch.zeros(40, 1, 2, 2, dtype=torch.uint8).numpy()
    source = RawSplit(numpy, torch.arange(40) % 2)
    assert refused(make, RawData(source, None)) == snapshot


@pytest.mark.parametrize(
    "changes",
    [
        {"train_images": 0},
        {"train_images": 401},
        {"test_images": 61},
        {"held_out_images": -1},
        {"train_images": 8},
        {"validation": "tset"},
        {"size": -3},
        {"fit": "bogus"},
        {"normalize": "half-way"},
        {"on_error": "x"},
        {"split_file": " "},
        {"sha256": "zz"},
    ],
    ids=str,
)
def test_refuses(changes: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    assert refused(make, **changes) == snapshot


def test_a_spec_takes_what_stands_for_its_types() -> None:
    spec = DataSpec("folder", root=Path("ph"), train_images=np.int64(5), options={"b": 1, "a": 2})  # type: ignore[arg-type]
    assert spec == DataSpec("folder", root="ph", train_images=5, options=(("a", 2), ("b", 1)))


UNKNOWN: dict[str, Any] = {
    "name": DataSpec("digit"),
    "no folder": DataSpec("digits", root="/x"),
    "no option": DataSpec("digits", options=(("size", 3),)),
    "root as an option": DataSpec("cifar10", options=(("root", "x"),)),
}


@pytest.mark.parametrize("spec", UNKNOWN.values(), ids=UNKNOWN)
def test_load_refuses(spec: DataSpec, snapshot: SnapshotAssertion) -> None:
    assert refused(load, spec) == snapshot


def test_digits() -> None:
    data = load(DataSpec("digits"))
    assert data.shape == (1, 8, 8)
    assert data.classes == tuple("0123456789")
    assert counts(data) == {"train": 948, "validation": 200, "calibration": 200, "test": 449}
    assert data.train.images.max() == 255
    assert len(data.train.images.unique()) == 17
    assert load(DataSpec("digits", split_seed=3)).test.digest == data.test.digest
    assert digests(load(DataSpec("digits"))) == digests(data)


def test_digits_are_pinned() -> None:
    """Keys of finished work hold this digest: it changes only when that is meant."""
    pinned = "6606ea76b9b5f981cf621d89206dcdcb5b502c0093001fdb8bbcc6a10174d6b3"
    assert load(DataSpec("digits")).train.digest == pinned


# What a person should know


def test_what_a_person_should_know(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    root = tree(tmp_path / "pets")
    assert notes(read("folder", root).provenance) == snapshot
    for i in range(40):
        save(root / "train/cat" / f"q{i}_.png", noise(1000 + i))
        save(root / "train/dog" / f"r{i}_.png", noise(2000 + i))
    save(root / "test/dog/p9_9.png", noise(24))  # as test/cat/p0_0.png
    (root / "test/cat/p8_8.png").write_bytes(b"")
    data = read("folder", root, group=r"([a-z]\d+)_", on_error="skip")
    assert list(map(stable, notes(data.provenance))) == snapshot
    assert notes({"duplicates": {"test in train": 2}}) == snapshot
    assert notes({}) == []  # of an old record


def test_what_cannot_be_classes(snapshot: SnapshotAssertion) -> None:
    """Before anything is as large as the largest label says."""
    labels = torch.arange(100) % 2
    split = RawSplit(torch.arange(400, dtype=torch.int32).to(torch.uint8).view(100, 1, 2, 2), labels)
    huge = RawSplit(split.images, torch.where(labels == 1, 10**10, labels))
    assert refused(assemble, RawData(huge, None), DataSpec("given")) == snapshot
    for label in (10**8, 2**62):
        huge = RawSplit(split.images, torch.where(torch.arange(100) == 7, label, labels))
        assert refused(assemble, RawData(huge, None), DataSpec("given")) == snapshot
    for name in ("a\x1b[31m", "", "\ud800"):
        assert refused(assemble, RawData(split, None, ("a", name)), DataSpec("given")) == snapshot
    assert assemble(RawData(split, None, ("a", "\u00e9")), DataSpec("given")).classes == ("a", "\u00e9")
