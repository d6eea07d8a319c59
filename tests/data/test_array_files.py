"""NumPy archives in MedMNIST's layout, and IDX files."""

import gzip
import io
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import counts, read, refused
from syrupy.assertion import SnapshotAssertion

from offramp.errors import OfframpError
from refusal import refuses
from wording import refusal


class Trap:
    """Unpickling it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def images(n: int, seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def labels(n: int, classes: int = 3) -> np.ndarray:
    return np.arange(n, dtype=np.uint8) % classes


def med(*shape: int) -> dict[str, np.ndarray]:
    arrays = {}
    for i, (name, n) in enumerate((("train", 90), ("val", 12), ("test", 15))):
        arrays[f"{name}_images"] = images(n, i, *shape)
        arrays[f"{name}_labels"] = labels(n)[:, None]
    return arrays


def archive(root: Path, arrays: dict[str, np.ndarray], name: str = "toymnist.npz") -> Path:
    root.mkdir(exist_ok=True)
    np.savez(root / name, **arrays)
    return root / name


@pytest.mark.parametrize("shape", [(28, 28), (64, 64), (28, 28, 3)])
def test_npz(tmp_path: Path, shape: tuple[int, ...]) -> None:
    arrays = med(*shape)
    path = archive(tmp_path / "med", arrays)
    data = read("npz", path.parent, classes=["a", "b", "c"])
    assert data.classes == ("a", "b", "c")
    assert data.shape == (3 if len(shape) == 3 else 1, *shape[:2])
    assert counts(data) == {"train": 69, "validation": 12, "calibration": 21, "test": 15}
    assert data.validation.labels.tolist() == [0, 1, 2] * 4
    first = torch.from_numpy(arrays["test_images"][0])
    expected = first.permute(2, 0, 1) if len(shape) == 3 else first[None]
    assert torch.equal(data.test.images[0], expected)
    assert read("npz", path).test.digest == data.test.digest
    assert read("npz", path).classes == ("0", "1", "2")


def test_npz_of_several_labels(tmp_path: Path) -> None:
    """As ChestMNIST's: 0 or 1 for each; a column [N, 1] is still of classes."""
    arrays = med(8, 8)
    for name in ("train", "val", "test"):
        own = labels(len(arrays[f"{name}_labels"]))
        arrays[f"{name}_labels"] = np.stack([own > 0, own > 1, own < 3], axis=1).astype(np.int64)
    data = read("npz", archive(tmp_path / "med", arrays), classes=["a", "b", "c"])
    assert data.several and data.classes == ("a", "b", "c")
    assert data.test.labels.tolist() == arrays["test_labels"].tolist()
    assert counts(data)["train"] == 69 and not read("npz", archive(tmp_path / "one", med(8, 8))).several
    arrays["test_labels"][3, 1] = 2
    refuses("0 or 1|0 and 1", read, "npz", archive(tmp_path / "other", arrays))


def test_npz_without_val_and_test(tmp_path: Path) -> None:
    arrays = {k: v for k, v in med(8, 8).items() if k.startswith("train")}
    data = read("npz", archive(tmp_path / "med", arrays), size=6, channels=3)
    assert sum(counts(data).values()) == 90 and data.shape == (3, 6, 6)


def test_splits_that_are_held_out_of_an_archive_share_no_image(tmp_path: Path) -> None:
    """Of an archive in which every image is twice; those that it splits itself are told of."""
    arrays = {k: v for k, v in med(8, 8).items() if k.startswith("train")}
    arrays = {k: np.concatenate([v, v]) for k, v in arrays.items()}
    twice = read("npz", archive(tmp_path / "med", arrays)).provenance["duplicates"]
    assert twice and not any(" in " in where for where in twice)
    for kind in ("images", "labels"):
        arrays[f"test_{kind}"] = arrays[f"train_{kind}"][:30]
    assert "test in train" in read("npz", archive(tmp_path / "own", arrays)).provenance["duplicates"]


@pytest.mark.parametrize("name", ["unit", "half"])
def test_what_is_alike_for_all_channels_normalizes_gray_images(tmp_path: Path, name: Any) -> None:
    data = read("npz", archive(tmp_path / "med", med(8, 8)), normalize=name)
    assert (data.mean, data.std) == {"unit": ((0,), (1,)), "half": ((0.5,), (0.5,))}[name]


def test_what_differs_between_channels_does_not(tmp_path: Path) -> None:
    refuses("3 channels", read, "npz", archive(tmp_path / "med", med(8, 8)), normalize="imagenet")


def test_which_npz(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    archive(tmp_path / "med", med(8, 8))
    archive(tmp_path / "med", med(9, 9), "other.npz")
    assert refused(read, "npz", tmp_path / "med") == snapshot
    assert read("npz", tmp_path / "med", file="other.npz").shape == (1, 9, 9)
    assert refused(read, "npz", tmp_path / "med", file="third.npz") == snapshot
    assert refused(read, "npz", tmp_path / "none") == snapshot


def test_a_pickle_in_an_npz_is_refused(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    mark = tmp_path / "it ran"
    hidden = med(8, 8) | {"val_labels": np.array([Trap(mark)] * 12, dtype=object)}
    path, bare = archive(tmp_path / "med", hidden), tmp_path / "bare.npz"
    assert "holds pickled objects" in refusal(read, "npz", path)
    bare.write_bytes(pickle.dumps(Trap(mark)))
    assert refused(read, "npz", bare) == snapshot
    assert not mark.exists()
    list(np.load(path, allow_pickle=True).values())  # the control: the trap works
    assert mark.exists()


WRONG: dict[str, Any] = {
    "floats": {"train_images": images(90, 0, 8, 8) / 255},
    "rank": {"train_images": images(90, 0, 8, 8, 8)},
    "several labels": {"train_labels": np.zeros((90, 14), np.int64)},
    "float labels": {"train_labels": np.zeros(90)},
    "fewer labels": {"train_labels": labels(89)},
    "another class": {"test_labels": labels(15, 5)},
    "no labels": {"test_labels": None},
    "no train": {"train_images": None},
    "other names": {**dict.fromkeys(med(8, 8)), "x_train": images(90, 0, 8, 8), "y_train": labels(90)},
    "no arrays": dict.fromkeys(med(8, 8)),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_npz_refuses(tmp_path: Path, change: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    arrays = {k: v for k, v in {**med(8, 8), **change}.items() if v is not None}
    assert refused(read, "npz", archive(tmp_path / "med", arrays)) == snapshot


def test_a_damaged_npz_is_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "med", med(8, 8))
    whole = path.read_bytes()
    for broken in (b"", whole[:500], whole[:-50], whole[:300] + b"x" * 100 + whole[400:]):
        path.write_bytes(broken)
        assert "toymnist.npz cannot be read" in refusal(read, "npz", path)


def header(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    """An array that has a header and nothing else."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def zipped(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def harmed(path: Path, old: bytes, new: bytes) -> None:
    whole = path.read_bytes()
    assert old in whole
    path.write_bytes(whole.replace(old, new))


def test_any_flipped_byte_is_named_or_does_no_harm(tmp_path: Path) -> None:
    path = archive(tmp_path / "med", med(4, 4))
    np.savez_compressed(path, **med(4, 4))
    whole, right = path.read_bytes(), read("npz", path).train.digest
    for at in range(0, len(whole), 61):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1 :])
        try:
            assert read("npz", path).train.digest == right
        except OfframpError as error:
            assert "toymnist.npz" in str(error) and "\n" not in str(error)


def encrypt(path: Path) -> None:
    harmed(path, b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")
    harmed(path, b"PK\x03\x04\x14\x00\x00\x00", b"PK\x03\x04\x14\x00\x01\x00")


def pack_otherwise(path: Path) -> None:
    head = b"PK\x01\x02\x14\x03\x14\x00\x00\x00"
    harmed(path, head + b"\x08", head + b"\x63")


def claiming(size: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("train_images.npy", WHOLE["train_images"])
            archive.filelist[0].file_size = size

    return write


WHOLE = {"train_images": header((90, 8, 8)) + bytes(90 * 64), "train_labels": header((90,)) + bytes(90)}
HOSTILE: dict[str, tuple[Mapping[str, bytes] | Callable[[Path], None], str]] = {
    "encrypted": (encrypt, "is encrypted"),
    "compression": (pack_otherwise, "method is not supported"),
    "huge": ({"train_images": header((3 * 2**40,))}, "hold 3,298,534,883,328 bytes"),
    "negative": ({"train_images": header((-90, 8, 8))}, "should hold"),
    "lying": (claiming(2**42), "unpacks to"),
    "labels": ({"train_labels": header((10**10,)) + bytes(90)}, "hold 10,000,000,000 bytes"),
    "bomb": (claiming(2**31), "unpacks to"),
    "header": ({"train_images": b"\x93NUMPY\x01\x00\xff\xff{"}, "cannot be read"),
    "deep": ({"train_images": b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000}, "cannot be read"),
    "no array": ({"train_images": b"hello"}, "cannot be read"),
}


@pytest.mark.parametrize(("harm", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_npz_is_refused_in_little_memory(tmp_path: Path, harm: Any, reason: str) -> None:
    path = zipped(tmp_path / "it.npz", {**WHOLE, **(harm if isinstance(harm, Mapping) else {})})
    if not isinstance(harm, Mapping):
        harm(path)
    assert reason in refusal(read, "npz", path)


def encoded(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


def mnist(root: Path, *, prefix: str = "", zipped: bool = True, first: int = 0, dot: str = "-") -> Path:
    root.mkdir(exist_ok=True)
    for i, (name, n) in enumerate((("train", 90), ("t10k", 15))):
        for kind, array in (("images", images(n, i, 9, 9)), ("labels", labels(n) + first)):
            end = f"{kind}{dot}idx{array.ndim}-ubyte"
            content = encoded(array)
            path = root / f"{prefix}{name}-{end}{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    return root


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("zipped", [True, False])
def test_idx(tmp_path: Path, zipped: bool, dot: str) -> None:
    data = read("idx", mnist(tmp_path / "m", zipped=zipped, dot=dot))
    assert data.shape == (1, 9, 9) and data.classes == ("0", "1", "2")
    assert sum(counts(data).values()) == 105
    assert torch.equal(data.test.images[:, 0], torch.from_numpy(images(15, 1, 9, 9)))
    assert data.test.labels.tolist() == [0, 1, 2] * 5


def test_idx_with_a_prefix_names_and_labels_from_one(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    root = mnist(tmp_path / "m", prefix="emnist-letters-", first=1)
    assert refused(read, "idx", root) == snapshot
    data = read("idx", root, prefix="emnist-letters-", first_label=1, classes=["a", "b", "c"])
    assert data.classes == ("a", "b", "c")
    assert data.test.labels.tolist() == [0, 1, 2] * 5


BROKEN: dict[str, Any] = {
    "empty": b"",
    "gzip": b"\x1f\x8b rubbish",
    "cut": gzip.compress(encoded(labels(15)))[:-9],
    "short": encoded(labels(15))[:-1],
    "long": encoded(labels(15)) + b"1",
    "doubles": b"\0\0\x0d\x01" + bytes(20),
    "2-d": encoded(images(15, 0, 1)),
    "fewer": encoded(labels(14)),
    "range": encoded(labels(15, 7)),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_idx_refuses(tmp_path: Path, content: bytes, snapshot: SnapshotAssertion) -> None:
    root = mnist(tmp_path / "m", zipped=False)
    (root / "t10k-labels-idx1-ubyte").write_bytes(content)
    assert refused(read, "idx", root) == snapshot


def test_a_small_file_that_unpacks_to_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.setattr(sys.modules["offramp.data.sources.idx"], "LARGE", 2**20)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(bytes(2**22)))
    assert refused(read, "idx", tmp_path) == snapshot
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(2**19)))
    assert refused(read, "idx", tmp_path) == snapshot
