"""Map-style Datasets and pairs of arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import refused
from PIL import Image
from syrupy.assertion import SnapshotAssertion
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from offramp.data.load import from_dataset
from offramp.data.samples import PROBES

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 5, 4, 3), dtype=np.uint8)
EXPECTED = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)


class Listed(Dataset[tuple[Any, Any]]):
    """Samples from a list; counts how often each is read."""

    def __init__(self, samples: list[Any], classes: Any = None) -> None:
        self.samples = samples
        self.reads = [0] * len(samples)
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        self.reads[index] += 1
        return self.samples[index]


def labelled(images: Any) -> Listed:
    return Listed([(image, i % 2) for i, image in enumerate(images)])


@pytest.mark.parametrize(
    "convert",
    [
        Image.fromarray,
        lambda p: Image.fromarray(p).convert("RGBA"),
        lambda p: p,
        lambda p: p.transpose(2, 0, 1),
        lambda p: torch.from_numpy(p).permute(2, 0, 1),
    ],
    ids=["pil", "rgba", "array HWC", "array CHW", "tensor CHW"],
)
def test_every_form_of_image_gives_the_same_pixels(convert: Any) -> None:
    test = labelled([convert(p) for p in PIXELS])
    data = from_dataset(test, test=test)
    assert data.test.images.dtype == torch.uint8
    assert torch.equal(data.test.images, EXPECTED)
    assert data.test.labels.tolist() == [0, 1] * 20


@pytest.mark.parametrize("convert", [Image.fromarray, lambda p: p, torch.from_numpy])
def test_gray_images_have_one_channel(convert: Any) -> None:
    gray = labelled([convert(p[..., 0].copy()) for p in PIXELS])
    data = from_dataset(gray, test=gray)
    assert torch.equal(data.test.images, EXPECTED[:, :1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_floats_are_taken_as_normalized(dtype: torch.dtype) -> None:
    images = torch.randn(40, 3, 4, 4).to(dtype)
    data = from_dataset(TensorDataset(images, torch.arange(40) % 2))
    assert data.train.images.dtype == torch.float32
    assert data.mean == (0.0, 0.0, 0.0)
    assert data.std == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("label", [int, np.int64, torch.tensor, np.uint8])
def test_every_form_of_label(label: Any) -> None:
    samples = Listed([(p, label(i % 2)) for i, p in enumerate(PIXELS)])
    assert from_dataset(samples, test=samples).test.labels.tolist() == [0, 1] * 20


@pytest.mark.parametrize(
    ("label", "names", "expected"),
    [
        (lambda i: i + 1, None, ("1", "2")),
        (lambda i: i + 1, ["cat", "dog"], ("cat", "dog")),
        (lambda i: "ab"[i], None, ("a", "b")),
        (lambda i: np.str_("ab"[i]), None, ("a", "b")),
        (lambda i: "ba"[i], ["b", "a"], ("b", "a")),
        (lambda i: torch.eye(2)[i], None, ("0", "1")),
        (lambda i: [1 - i, i], None, ("0", "1")),
        (lambda i: np.array([i]), None, ("0", "1")),
    ],
    ids=["from 1", "from 1, named", "strings", "NumPy's", "in order", "one-hot", "list", "MedMNIST's"],
)
def test_labels_are_numbered_and_named(label: Any, names: Any, expected: tuple[str, ...]) -> None:
    labels = [label(i % 2) for i in range(40)]
    samples = Listed([(p, x) for p, x in zip(PIXELS, labels, strict=True)], names)
    arrays = (EXPECTED, torch.stack(labels) if isinstance(labels[0], torch.Tensor) else labels)
    for data in (from_dataset(samples, test=samples), from_dataset(arrays, test=arrays, classes=names)):
        assert data.test.labels.tolist() == [0, 1] * 20
        assert data.classes == expected
        shifted = label(0) == 1 if isinstance(label(0), int) else False
        assert any(line.startswith("labels 1 to 2") for line in data.provenance["remarks"]) == shifted


def test_labels_from_one_stay_where_a_class_may_be_missing() -> None:
    named = Listed([(p, i % 2 + 1) for i, p in enumerate(PIXELS)], ["nothing", "cat", "dog"])
    assert set(from_dataset(named).train.labels.tolist()) == {1, 2}
    gaps = Listed([(p, [1, 3][i % 2]) for i, p in enumerate(PIXELS)])
    assert from_dataset(gaps).classes == ("0", "1", "2", "3")


def test_arrays(snapshot: SnapshotAssertion) -> None:
    labels = np.arange(40) % 2
    by_array = from_dataset((EXPECTED.numpy(), labels), test=(EXPECTED, torch.from_numpy(labels)))
    by_dataset = from_dataset(labelled(PIXELS), test=labelled(PIXELS))
    for name, part in by_array.splits.items():
        assert part.digest == by_dataset.splits[name].digest
    assert from_dataset((EXPECTED[:, 0], labels)).shape == (1, 5, 4)
    tracked = (EXPECTED / 255 - 0.5).requires_grad_()
    assert not from_dataset((tracked, labels)).train.images.requires_grad
    turned = np.ascontiguousarray(EXPECTED.numpy()[:, ::-1])[:, ::-1]  # as of BGR files
    assert from_dataset((turned, labels)).train.digest == from_dataset((EXPECTED, labels)).train.digest
    assert refused(from_dataset, (EXPECTED, labels), classes="ab") == snapshot


def test_splits_not_given_are_held_out_of_train_and_never_overlap() -> None:
    images = torch.arange(400, dtype=torch.float32).reshape(400, 1, 1, 1)
    labels = torch.arange(400) % 4
    whole = TensorDataset(images, labels)
    data = from_dataset(whole)
    parts = [set(split.images.flatten().tolist()) for split in data.splits.values()]
    assert [len(part) for part in parts] == [160, 80, 80, 80]
    assert set().union(*parts) == set(range(400))
    own = TensorDataset(images[:7] + 1000, labels[:7])
    partly = from_dataset(whole, validation=own, test=own)
    assert partly.validation.images.min() == 1000
    assert partly.test.images.min() == 1000
    assert partly.calibration.digest == data.calibration.digest
    assert len(partly.train) == 320
    everything = from_dataset(whole, validation=own, calibration=own, test=own)
    assert len(everything.train) == 400
    assert from_dataset(whole, split_seed=1).train.digest != data.train.digest


def test_each_sample_is_read_once_and_a_few_twice() -> None:
    samples = labelled(np.tile(PIXELS, (10, 1, 1, 1)))
    from_dataset(samples)
    assert set(samples.reads) == {1, 2} and sum(samples.reads) <= 400 + PROBES


def test_class_names() -> None:
    plain = labelled(PIXELS)
    named = Listed(plain.samples, classes=["cat", "dog"])
    assert from_dataset(plain).classes == ("0", "1")
    assert from_dataset(named).classes == ("cat", "dog")
    assert from_dataset(named, classes=("x", "y", "z")).classes == ("x", "y", "z")
    assert from_dataset(Subset(plain, range(20))).classes == ("0", "1")
    assert from_dataset(Subset(named, range(20))).classes == ("cat", "dog")


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([])


def changed(index: int, sample: Any) -> Listed:
    samples = list(labelled(PIXELS).samples)
    samples[index] = sample
    return Listed(samples)


WRONG: dict[str, Any] = {
    "no length": Stream(),
    "loader": DataLoader(labelled(PIXELS)),
    "text": "photos",
    "path": Path("photos"),
    "empty": Listed([]),
    "empty arrays": (EXPECTED[:0], []),
    "nothing": None,
    "no pair": changed(3, PIXELS[3]),
    "triple": changed(3, (PIXELS[3], 1, 2)),
    "image is text": changed(3, ("a.png", 1)),
    "label 0.5": changed(3, (PIXELS[3], 0.5)),
    "a name among numbers": changed(3, (PIXELS[3], "cat")),
    "several among one": changed(3, (PIXELS[3], torch.tensor([1, 1]))),
    "soft": changed(3, (PIXELS[3], [0.9, 0.1])),
    "a number among names": Listed([(p, "ab"[i % 2] if i - 3 else 1) for i, p in enumerate(PIXELS)]),
    "another name": Listed([(p, "ba"[i % 2]) for i, p in enumerate(PIXELS)], ["a", "c"]),
    "negative": changed(3, (PIXELS[3], -1)),
    "size": changed(3, (PIXELS[3][:4], 1)),
    "type": changed(3, (PIXELS[3] / 255, 1)),
    "whole numbers": changed(3, (PIXELS[3].astype(np.int64), 1)),
    "rank": changed(3, (PIXELS, 1)),
    "mode I": changed(3, (Image.new("I", (4, 5)), 1)),
    "one class": Listed([(p, 0) for p in PIXELS]),
    "one class trains": Listed([(p, 1) for p in PIXELS]),
    "few": labelled(PIXELS[:6]),
    "fewer labels": (EXPECTED, torch.zeros(39, dtype=torch.int64)),
    "float labels": (EXPECTED, torch.zeros(40)),
    "no arrays": ([0] * 40, EXPECTED),
    "arrays negative": (EXPECTED, [-1, 0] * 20),
    "arrays huge": (EXPECTED, [0, 10**12] * 20),
    "arrays huger": (EXPECTED, [0, 2**64] * 20),
}


@pytest.mark.parametrize("samples", WRONG.values(), ids=WRONG)
def test_refuses(samples: Any, snapshot: SnapshotAssertion) -> None:
    assert refused(from_dataset, samples) == snapshot


@pytest.mark.parametrize("last", [1, 3, 4])
def test_pictures_whose_channels_are_last_are_not_taken_for_many_channels(
    last: int, snapshot: SnapshotAssertion
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (80, 9, 8, last), dtype=np.uint8)
    pictures = images if last == 4 else torch.from_numpy(images)  # of arrays, the last axis is found
    assert refused(from_dataset, labelled(pictures)) == snapshot
    assert refused(from_dataset, (pictures, [0, 1] * 40)) == snapshot
    many = torch.zeros(80, 9, 5, 5, dtype=torch.uint8)
    many[::2] = 200
    assert from_dataset((many, [0, 1] * 40)).shape == (9, 5, 5)
