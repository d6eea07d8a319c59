"""CIFAR's official binary versions: files and archives made here; counts; the pickled version."""

import io
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import REAL, counts, pixel_hash, read, real, refused
from syrupy.assertion import SnapshotAssertion

from offramp.data import Data

TEN = ("plane", "car", "bird")
FINE, COARSE = ("apple", "bee", "cup", "dolphin"), ("alive", "not alive")


def records(n: int, seed: int, *classes: int) -> bytes:
    """Labels cycle through the classes, the pixels are noise."""
    generator = np.random.default_rng(seed)
    rows = [np.arange(n, dtype=np.uint8)[:, None] % c for c in classes]
    pixels = generator.integers(0, 256, (n, 3072), dtype=np.uint8)
    return np.hstack([*rows, pixels]).tobytes()


def cifar10(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(records(30, i, 3))
    (folder / "test_batch.bin").write_bytes(records(12, 6, 3))
    (folder / "batches.meta.txt").write_text("\n".join(TEN) + "\n\n")
    return folder


def cifar100(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "train.bin").write_bytes(records(120, 1, 2, 4))
    (folder / "test.bin").write_bytes(records(12, 2, 2, 4))
    (folder / "fine_label_names.txt").write_text("\n".join(FINE))
    (folder / "coarse_label_names.txt").write_text("\n".join(COARSE[:1]) + "\nnot_alive\n")
    return folder


def packed(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, folder.name)
    shutil.rmtree(folder)
    return archive.parent


def small(name: str, root: Path, **options: object) -> Data:
    return read(name, root, official=False, **options)


def test_cifar10_files(tmp_path: Path) -> None:
    data = small("cifar10", cifar10(tmp_path / "bin"))
    assert data.classes == TEN
    assert data.shape == (3, 32, 32)
    assert counts(data) == {"train": 78, "validation": 36, "calibration": 36, "test": 12}
    assert data.test.labels.tolist() == [0, 1, 2] * 4
    first = np.frombuffer(records(12, 6, 3), np.uint8).reshape(12, 3073)[0, 1:].reshape(3, 32, 32)
    assert torch.equal(data.test.images[0], torch.from_numpy(first.copy()))
    assert set(data.provenance["files"]) == {p.name for p in (tmp_path / "bin").iterdir()}


def test_the_archive_gives_the_same_as_its_files(tmp_path: Path) -> None:
    files = small("cifar10", cifar10(tmp_path / "loose" / "cifar-10-batches-bin").parent)
    folder = cifar10(tmp_path / "packed" / "cifar-10-batches-bin")
    archive = small("cifar10", packed(folder, folder.parent / "cifar-10-binary.tar.gz"))
    assert archive.train.digest == files.train.digest
    assert archive.classes == files.classes
    assert [p.name for p in (tmp_path / "packed").iterdir()] == ["cifar-10-binary.tar.gz"]


def test_cifar100_fine_and_coarse(tmp_path: Path) -> None:
    root = cifar100(tmp_path / "c")
    fine, coarse = small("cifar100", root), small("cifar100", root, coarse=True)
    assert fine.classes == FINE and coarse.classes == ("alive", "not_alive")
    assert fine.test.labels.tolist() == [0, 1, 2, 3] * 3
    assert coarse.test.labels.tolist() == [0, 1] * 6
    assert torch.equal(fine.test.images, coarse.test.images)


def test_other_counts_than_the_official_ones_are_refused(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    for name, root in (("cifar10", cifar10(tmp_path / "a")), ("cifar100", cifar100(tmp_path / "b"))):
        assert refused(read, name, root) == snapshot


def test_the_pickled_version_is_never_read(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"labels": [0]}))
    for root in (tmp_path, packed(folder, tmp_path / "cifar-10-python.tar.gz")):
        assert refused(read, "cifar10", root) == snapshot


def cleared(root: Path) -> Path:
    for path in root.iterdir():
        path.unlink()
    return root


def tarred(*members: tarfile.TarInfo) -> bytes:
    """An archive of a readme, and of what the heads of members say."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        file.addfile(tarfile.TarInfo("cifar-10-batches-bin/readme.html"))
        for member in members:
            file.fileobj.write(member.tobuf())
    return buffer.getvalue()


def member(name: str, **about: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in about.items():
        setattr(info, field, value)
    return info


def archived(content: bytes) -> Callable[[Path], object]:
    return lambda root: (cleared(root) / "cifar-10-binary.tar.gz").write_bytes(content)


def flip_a_bit(root: Path) -> None:
    archive = packed(root, root.parent / "cifar-10-binary.tar.gz") / "cifar-10-binary.tar.gz"
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0x81
    root.mkdir()
    (root / archive.name).write_bytes(content)


TEST, FIRST = "test_batch.bin", "data_batch_1.bin"
LINK = tarfile.SYMTYPE
WRONG: dict[str, Callable[[Path], object]] = {
    "missing": shutil.rmtree,
    "empty": cleared,
    "batch": lambda root: (root / "data_batch_3.bin").unlink(),
    "names": lambda root: (root / "batches.meta.txt").unlink(),
    "short": lambda root: (root / TEST).write_bytes((root / TEST).read_bytes()[:-10]),
    "classes": lambda root: (root / "batches.meta.txt").write_bytes(b"\xff\xfe\n"),
    "label": lambda root: (root / TEST).write_bytes(records(12, 6, 5)),
    "archive": archived(b"not a tar file"),
    "archive lacks": archived(tarred()),
    "archive bit": flip_a_bit,
    "archive loop": archived(
        tarred(member(FIRST, type=LINK, linkname=TEST), member(TEST, type=LINK, linkname=FIRST))
    ),
    "archive bomb": archived(tarred(member(FIRST, size=2**40))),
}


@pytest.mark.parametrize("harm", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(
    tmp_path: Path, harm: Callable[[Path], object], snapshot: SnapshotAssertion
) -> None:
    root = cifar10(tmp_path / "bin")
    harm(root)
    assert refused(small, "cifar10", root) == snapshot


@real("cifar100")
def test_real_cifar100() -> None:
    data = read("cifar100", REAL / "cifar100", train_images=2000, test_images=500)
    assert data.provenance["available"] == {"train": 50_000, "test": 10_000}
    assert data.classes[:3] == ("apple", "aquarium_fish", "baby") and len(data.classes) == 100
    assert data.shape == (3, 32, 32)
    assert data.test.labels.bincount().tolist() == [5] * 100
    assert pixel_hash(data.test.images[0]) == "22138637bf8f005f"
