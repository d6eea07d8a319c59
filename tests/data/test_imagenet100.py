"""ILSVRC trees: a made one, and Imagenette where it is at hand."""

from pathlib import Path

import pytest
import torch
from pictures import REAL, as_tensor, counts, pixel_hash, read, real, refused, save, smooth
from syrupy.assertion import SnapshotAssertion

from offramp.data import Data
from offramp.data.images.files import open_image
from offramp.data.images.geometry import Geometry
from offramp.data.sources.imagenet100 import _classes

WNIDS = ("n01440764", "n02102040", "n03888257")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, n in (("train", 12), ("val", 4)):
        for k, wnid in enumerate(WNIDS):
            for i in range(n):
                image = smooth(300 + 10 * i, 280 + 20 * k)
                save(tmp_path / "ilsvrc" / split / wnid / f"{wnid}_{i}.JPEG", image)
    return tmp_path / "ilsvrc"


def chosen(root: Path, *wnids: str) -> Data:
    return read("imagenet100", root, wnids=list(wnids), size=32)


def test_val_is_the_test_split_and_classes_are_in_order(root: Path) -> None:
    data = chosen(root, WNIDS[2], WNIDS[0])
    assert data.classes == (WNIDS[0], WNIDS[2])
    assert counts(data) == {"train": 12, "validation": 6, "calibration": 6, "test": 8}
    assert data.test.labels.tolist() == [0] * 4 + [1] * 4


def test_a_shorter_side_of_256_and_a_crop_of_224(root: Path) -> None:
    data = read("imagenet100", root, wnids=list(WNIDS), train_images=30, test_images=3)
    assert data.shape == (3, 224, 224)
    assert data.provenance["geometry"] == {"size": 224, "resize": 256, "fit": "crop", "channels": None}
    paths = sorted((root / "val").rglob("*.JPEG"))
    expected = [Geometry(224, 256).of(open_image(path, "it")) for path in paths]
    for image in data.test.images:
        assert any(torch.equal(image, e) for e in expected)
    # As by hand: the middle of the image scaled.
    by_hand = as_tensor(smooth(256 * 300 // 280, 256))
    top = (by_hand.shape[1] - 224) // 2
    assert (expected[0].int() - by_hand[:, top : top + 224, 16:240].int()).abs().max() < 8


def test_another_size_keeps_the_proportion(root: Path) -> None:
    assert chosen(root, *WNIDS).provenance["geometry"]["resize"] == 37
    data = read("imagenet100", root, wnids=list(WNIDS), size=32, resize=40)
    assert data.provenance["geometry"]["resize"] == 40
    data = read("imagenet100", root, wnids=list(WNIDS), size=32, fit="stretch")
    assert data.provenance["geometry"]["resize"] is None


def test_the_list_is_shipped(tmp_path: Path) -> None:
    names = _classes(None, tmp_path)
    assert len(names) == 100 and names == tuple(sorted(names))
    assert names[0] == "n01558993" and all(len(name) == 9 for name in names)


def test_another_list(root: Path, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    everything = read("imagenet100", root, wnids="all", size=32)
    assert everything.classes == WNIDS
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(WNIDS[:2]))
    assert read("imagenet100", root, wnids=str(listed), size=32).classes == WNIDS[:2]
    assert refused(read, "imagenet100", root, wnids=str(tmp_path / "none.txt")) == snapshot
    assert refused(chosen, root, WNIDS[0]) == snapshot


def test_the_competitions_folders_are_found(root: Path, tmp_path: Path) -> None:
    (tmp_path / "kaggle/ILSVRC/Data").mkdir(parents=True)
    whole = chosen(root, *WNIDS)
    root.rename(tmp_path / "kaggle/ILSVRC/Data/CLS-LOC")
    assert chosen(tmp_path / "kaggle", *WNIDS).test.digest == whole.test.digest


def test_what_is_missing_is_said(root: Path, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    assert refused(read, "imagenet100", root) == snapshot
    assert refused(read, "imagenet100", tmp_path / "none") == snapshot
    assert refused(read, "imagenet100", root / "val") == snapshot
    (root / "val").rename(root / "validation")
    assert refused(chosen, root, *WNIDS) == snapshot


@pytest.mark.long
@real("imagenette")
def test_imagenette() -> None:
    data = read("imagenet100", REAL / "imagenette", wnids="all", size=64)
    assert len(data.classes) == 10 and data.classes[0] == "n01440764"
    assert counts(data) == {"train": 600, "validation": 200, "calibration": 200, "test": 400}
    assert data.test.labels.bincount().tolist() == [40] * 10
    assert data.provenance["duplicates"] == {}
    assert pixel_hash(data.test.images[0]) == "9f2e8c65d58b8a1b"
