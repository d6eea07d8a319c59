"""Folders of Parquet files: tiny ones made here, and the real CIFAR-10 where it is at hand."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pictures import REAL, counts, real, refused
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from offramp.data import DataSpec
from offramp.data.load import load
from offramp.errors import OfframpError

NAMES = ("cat", "dog")


def png(pixels: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def pixels(n: int, seed: int = 0, size: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def write(
    path: Path,
    files: list[bytes | None],
    labels: list[Any],
    *,
    image: str = "img",
    label: str = "label",
    names: tuple[str, ...] | None = NAMES,
    struct: bool = True,
) -> None:
    """A Parquet file in the hub's form."""
    path.parent.mkdir(parents=True, exist_ok=True)
    column = pa.array(files, pa.binary())
    if struct:
        column = pa.StructArray.from_arrays(
            [column, pa.array(["x.png"] * len(files))], ["bytes", "path"]
        )
    table = pa.table({image: column, label: pa.array(labels, None if labels else pa.int64())})
    if names is not None:
        features = {label: {"names": list(names), "_type": "ClassLabel"}, image: {"_type": "Image"}}
        meta = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": meta})
    pq.write_table(table, path)


TRAIN, TEST = "train-00000-of-00001.parquet", "test-00000-of-00001.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 training and 10 test images of two classes."""
    root = tmp_path / "tiny"
    write(root / TRAIN, [png(p) for p in pixels(40)], [i % 2 for i in range(40)])
    write(root / TEST, [png(p) for p in pixels(10, 1)], [i % 2 for i in range(10)])
    return root


def spec(root: Path, **changes: Any) -> DataSpec:
    """Data of any size: CIFAR-10's own counts are not asked for."""
    options = (("official", False), *changes.pop("options", ()))
    return DataSpec("cifar10", **{"root": str(root), "options": options, **changes})


def test_pixels_labels_and_names_arrive(folder: Path) -> None:
    data = load(spec(folder))
    assert data.classes == NAMES
    assert data.shape == (3, 6, 6)
    assert counts(data) == {"train": 20, "validation": 10, "calibration": 10, "test": 10}
    expected = torch.from_numpy(pixels(10, 1)).permute(0, 3, 1, 2)
    assert torch.equal(data.test.images, expected)
    assert data.test.labels.tolist() == [0, 1] * 5
    # Every training image is in one split, with its own label.
    source = torch.from_numpy(pixels(40)).permute(0, 3, 1, 2)
    label_of = {image.numpy().tobytes(): i % 2 for i, image in enumerate(source)}
    seen = []
    for part in (data.train, data.validation, data.calibration):
        for image, label in zip(part.images, part.labels, strict=True):
            key = image.contiguous().numpy().tobytes()
            assert label_of[key] == label
            seen.append(key)
    assert sorted(seen) == sorted(label_of)


def test_provenance_is_json(folder: Path) -> None:
    provenance = json.loads(json.dumps(load(spec(folder, train_images=20)).provenance))
    assert provenance["available"] == {"train": 40, "test": 10}
    assert provenance["images"]["train"] == 12
    assert len(provenance["files"][TRAIN]["sha256"]) == 64


def test_shards_follow_in_order_and_a_missing_one_is_noticed(
    folder: Path, snapshot: SnapshotAssertion
) -> None:
    whole = load(spec(folder))
    (folder / TRAIN).unlink()
    files, labels = [png(p) for p in pixels(40)], [i % 2 for i in range(40)]
    write(folder / "train-00000-of-00002.parquet", files[:15], labels[:15])
    assert refused(load, spec(folder)) == snapshot
    write(folder / "train-00001-of-00002.parquet", files[15:], labels[15:], struct=False)
    assert load(spec(folder)).train.digest == whole.train.digest


def test_the_hubs_subfolders_are_found(folder: Path) -> None:
    whole = load(spec(folder))
    (folder / "plain_text").mkdir()
    for name in (TRAIN, TEST):
        (folder / name).rename(folder / "plain_text" / name)
    assert load(spec(folder)).train.digest == whole.train.digest


def test_a_subset_decodes_only_its_rows(folder: Path, snapshot: SnapshotAssertion) -> None:
    files: list[bytes | None] = [b"not an image"] * 40
    chosen = load(spec(folder, train_images=20)).provenance["images"]
    assert sum(chosen[name] for name in ("train", "validation", "calibration")) == 20
    write(folder / TEST, files[:10], [i % 2 for i in range(10)])
    assert refused(load, spec(folder)) == snapshot
    # Row 3 alone is broken: seeds whose subset leaves it out never touch it.
    images: list[bytes | None] = [png(p) for p in pixels(10, 1)]
    images[3] = b"not an image"
    write(folder / TEST, images, [i % 2 for i in range(10)])
    outcomes = set()
    for seed in range(12):
        try:
            load(spec(folder, test_images=4, split_seed=seed))
            outcomes.add("left out")
        except OfframpError as error:
            assert "row 3" in str(error)
            outcomes.add("read")
    assert outcomes == {"left out", "read"}


def test_other_columns(folder: Path, snapshot: SnapshotAssertion) -> None:
    for name, n in ((TRAIN, 40), (TEST, 10)):
        labels = [i % 2 for i in range(n)]
        write(folder / name, [png(p) for p in pixels(n)], labels, image="image", label="fine_label")
    assert refused(load, spec(folder)) == snapshot
    assert refused(load, spec(folder, options=(("image_column", "image"),))) == snapshot
    columns = (("image_column", "image"), ("label_column", "fine_label"))
    assert load(spec(folder, options=columns)).classes == NAMES
    swapped = (("image_column", "fine_label"), ("label_column", "image"))
    assert refused(load, spec(folder, options=swapped)) == snapshot
    assert refused(load, spec(folder, options=(("image_colum", "image"),))) == snapshot


def test_without_names_the_training_labels_are_numbered(
    folder: Path, snapshot: SnapshotAssertion
) -> None:
    for name, n in ((TRAIN, 40), (TEST, 10)):
        write(folder / name, [png(p) for p in pixels(n)], [i % 2 for i in range(n)], names=None)
    assert load(spec(folder)).classes == ("0", "1")
    write(folder / TEST, [png(p) for p in pixels(10)], [5] * 10, names=None)
    assert refused(load, spec(folder)) == snapshot


def test_class_order_must_agree(folder: Path, snapshot: SnapshotAssertion) -> None:
    write(folder / TEST, [png(p) for p in pixels(10)], [0] * 10, names=("dog", "cat"))
    assert refused(load, spec(folder)) == snapshot


def test_files_that_another_decoder_refused_or_read_in_another_way(folder: Path) -> None:
    """torchvision's decoder, until 0.28: it refused 16 bits and animations, turned no WebP by its EXIF
    data, and gave what a GIF makes transparent the color of its background."""
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored image is to be turned clockwise
    still, other = (Image.fromarray(p) for p in pixels(2, 2))
    palette = still.quantize(16)

    def encoded(image: Image.Image, form: str, **how: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, form, **how)
        return buffer.getvalue()

    first = {
        "deep": (png(np.full((6, 6), 40000, dtype=np.uint16)), Image.new("RGB", (6, 6), (156,) * 3)),
        "animation": (encoded(palette, "GIF", save_all=True, append_images=[other]), palette),
        "turned": (encoded(still, "WEBP", lossless=True, exif=exif), still.rotate(-90)),
        "transparent": (encoded(palette, "GIF", transparency=3), palette),
        "gray": (encoded(still.convert("L"), "PNG"), still.convert("L")),
    }
    files, images = zip(*first.values(), strict=True)
    write(folder / TEST, list(files), [0, 1, 0, 1, 0])
    expected = torch.stack([torch.from_numpy(np.array(i.convert("RGB"))) for i in images])
    assert torch.equal(load(spec(folder)).test.images, expected.permute(0, 3, 1, 2))


def last_image(file: bytes | None) -> Callable[[Path], None]:
    return lambda path: write(path, [*FILES[:9], file], LABELS)


def last_label(label: int | None) -> Callable[[Path], None]:
    return lambda path: write(path, FILES, [*LABELS[:9], label])


FILES: list[bytes | None] = [png(p) for p in pixels(10)]
LABELS = [i % 2 for i in range(10)]
# What is done to the file of the test split.
BROKEN: dict[str, Callable[[Path], object]] = {
    "folder": lambda path: shutil.rmtree(path.parent),
    "split": Path.unlink,
    "not parquet": lambda path: path.write_bytes(b"version https://git-lfs.github.com"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-50]),
    "empty file": lambda path: path.write_bytes(b""),
    "no rows": lambda path: write(path, [], []),
    "sizes": last_image(png(pixels(1, size=8)[0])),
    "no bytes": last_image(None),
    "empty bytes": last_image(b""),
    "cut image": last_image(png(pixels(1)[0])[:30]),
    "label words": lambda path: write(path, FILES, ["cat"] * 10),
    "label gaps": last_label(None),
    "negative": last_label(-1),
}


@pytest.mark.parametrize("harm", BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_named_in_one_line(
    folder: Path, harm: Callable[[Path], object], snapshot: SnapshotAssertion
) -> None:
    harm(folder / TEST)
    assert refused(load, spec(folder)) == snapshot


def test_a_link_to_a_file_elsewhere_is_followed(folder: Path) -> None:
    (folder / TEST).symlink_to((folder / TEST).rename(folder.parent / "blob"))
    assert len(load(spec(folder)).test) == 10


def test_root_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)
    assert refused(load, DataSpec("cifar10")) == snapshot
    monkeypatch.setenv("OFFRAMP_DATA", str(folder.parent))
    assert refused(load, DataSpec("cifar10")) == snapshot
    folder.rename(folder.parent / "cifar10")
    assert len(load(DataSpec("cifar10", options=(("official", False),))).test) == 10


@real("cifar10")
class TestRealCifar10:
    def test_subset(self) -> None:
        data = load(spec(REAL / "cifar10", train_images=1000, test_images=200))
        assert data.classes[:3] == ("airplane", "automobile", "bird")
        assert data.shape == (3, 32, 32)
        by_class = {k: s.labels.bincount().unique().tolist() for k, s in data.splits.items()}
        assert by_class == {"train": [60], "validation": [20], "calibration": [20], "test": [20]}
        # Color statistics of natural images, close to the published (0.491, 0.482, 0.447).
        assert torch.tensor(data.mean).allclose(torch.tensor([0.491, 0.482, 0.447]), atol=0.02)

    @pytest.mark.long
    def test_whole(self) -> None:
        data = load(spec(REAL / "cifar10"))
        by_class = {k: s.labels.bincount().unique().tolist() for k, s in data.splits.items()}
        assert by_class == {"train": [4500], "validation": [250], "calibration": [250], "test": [1000]}
