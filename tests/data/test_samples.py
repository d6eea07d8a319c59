"""Map-style Datasets and pairs of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from offramp.data.load import from_dataset
from offramp.data.samples import PROBES
from refusal import refuses

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
    given = [label(i % 2) for i in range(40)]
    samples = Listed([(p, x) for p, x in zip(PIXELS, given, strict=True)], names)
    arrays = (EXPECTED, torch.stack(given) if isinstance(given[0], torch.Tensor) else given)
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


def test_arrays() -> None:
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
    refuses("classes is the text 'ab'", from_dataset, (EXPECTED, labels), classes="ab")


def test_splits_not_given_are_held_out_of_train_and_never_overlap() -> None:
    images = torch.arange(400, dtype=torch.float32).reshape(400, 1, 1, 1)
    labels = torch.arange(400) % 4
    whole = TensorDataset(images, labels)
    data = from_dataset(whole)
    parts = [set(split.images.flatten().tolist()) for split in data.splits.values()]
    assert [len(part) for part in parts] == [160, 80, 80, 80]
    assert set().union(*parts) == set(range(400))
    own = TensorDataset(images[:7] + 1000, labels[:7])
    given = from_dataset(whole, validation=own, test=own)
    assert given.validation.images.min() == 1000
    assert given.test.images.min() == 1000
    assert given.calibration.digest == data.calibration.digest
    assert len(given.train) == 320
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


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (Stream(), "a Stream without a length; give a map-style Dataset"),
        (DataLoader(labelled(PIXELS)), r"a DataLoader; give its dataset"),
        ("photos", "the train data is a str; give a Dataset"),
        (Path("photos"), "the train data is a PosixPath; give a Dataset"),
        (Listed([]), "train data holds no samples"),
        ((EXPECTED[:0], []), "train data holds no samples"),
        (None, "there is no train data"),
        (changed(3, PIXELS[3]), r"train sample 3 is a ndarray; give \(image, label\)"),
        (changed(3, (PIXELS[3], 1, 2)), r"train sample 3 is a tuple of 3; give \(image, label\)"),
        (changed(3, ("a.png", 1)), "sample 3 has a str for an image"),
        (changed(3, (PIXELS[3], 0.5)), "sample 3 has the label 0.5"),
        (changed(3, (PIXELS[3], "cat")), "sample 3 has the label 'cat' among numbers"),
        (changed(3, (PIXELS[3], torch.tensor([1, 1]))), r"the label \[1, 1\], which is not one class"),
        (changed(3, (PIXELS[3], [0.9, 0.1])), "which is not one class"),
        (
            Listed([(p, "ab"[i % 2] if i - 3 else 1) for i, p in enumerate(PIXELS)]),
            "label 1 among names",
        ),
        (
            Listed([(p, "ba"[i % 2]) for i, p in enumerate(PIXELS)], ["a", "c"]),
            "'b', which is not a class",
        ),
        (changed(3, (PIXELS[3], -1)), "label -1, outside 0 to 1"),
        (
            changed(3, (PIXELS[3][:4], 1)),
            "train sample 3 is 3×4×4",
        ),
        (changed(3, (PIXELS[3] / 255, 1)), "sample 3 is 3×5×4 float32"),
        (changed(3, (PIXELS[3].astype(np.int64), 1)), "sample 3 has torch.int64 pixels"),
        (changed(3, (PIXELS, 1)), "sample 3 has an image of shape"),
        (changed(3, (Image.new("I", (4, 5)), 1)), "sample 3 has PIL mode I"),
        (Listed([(p, 0) for p in PIXELS]), "1 class"),
        (Listed([(p, 1) for p in PIXELS]), "one class only"),
        (labelled(PIXELS[:6]), "too few training images to hold out a validation split"),
        ((EXPECTED, torch.zeros(39, dtype=torch.int64)), "train data has 40 images but 39 labels"),
        ((EXPECTED, torch.zeros(40)), "train sample 0 has the label 0.0"),
        (([0] * 40, EXPECTED), "not of two arrays"),
        ((EXPECTED, [-1, 0] * 20), "label -1, outside 0 to 0"),
        ((EXPECTED, [0, 10**12] * 20), "has 1,000,000,000,001 classes"),
        ((EXPECTED, [0, 2**64] * 20), "labels go from 0 to 18446744073709551616"),
    ],
)
def test_refuses(samples: Any, message: str) -> None:
    refuses(message, from_dataset, samples)


@pytest.mark.parametrize("last", [1, 3, 4])
def test_pictures_whose_channels_are_last_are_not_taken_for_many_channels(last: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (80, 9, 8, last), dtype=np.uint8)
    given = images if last == 4 else torch.from_numpy(images)  # of arrays, the last axis is found
    message = rf"has pictures of shape \[9, 8, {last}\], which as \[C, H, W\] have 9 channels; give"
    refuses(message, from_dataset, labelled(given))
    refuses(message, from_dataset, (given, [0, 1] * 40))
    many = torch.zeros(80, 9, 5, 5, dtype=torch.uint8)
    many[::2] = 200
    assert from_dataset((many, [0, 1] * 40)).shape == (9, 5, 5)
