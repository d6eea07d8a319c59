"""Split, Data, statistics and normalize."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from pictures import refused
from syrupy.assertion import SnapshotAssertion

from offramp.data.dataset import Data, Split, normalize, statistics


def split(n: int = 6, shape: tuple[int, ...] = (3, 4, 4), classes: int = 2) -> Split:
    generator = torch.Generator().manual_seed(n)
    images = torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(n) % classes)


def data(**changes: object) -> Data:
    parts = {"train": split(8), "validation": split(5), "calibration": split(4), "test": split(6)}
    mean, std = statistics(parts["train"].images)
    fields = {"name": "toy", "classes": ("a", "b"), **parts, "mean": mean, "std": std}
    return Data(**{**fields, **changes})  # type: ignore[arg-type]


def test_digest_sees_every_byte_and_nothing_else() -> None:
    original = split()
    again = Split(original.images.clone(), original.labels.clone())
    assert again.digest == original.digest
    channels_last = original.images.contiguous(memory_format=torch.channels_last)
    assert Split(channels_last, original.labels).digest == original.digest
    for position in (0, original.images.numel() - 1):
        flipped = original.images.clone()
        flipped.view(-1)[position] ^= 1
        assert Split(flipped, original.labels).digest != original.digest
    relabelled = original.labels.clone()
    relabelled[-1] = 0
    assert Split(original.images, relabelled).digest != original.digest
    reshaped = original.images.reshape(6, 3, 2, 8)
    assert Split(reshaped, original.labels).digest != original.digest


def test_digest_sees_the_type() -> None:
    zeros = Split(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]))
    bytes_of_it = Split(torch.zeros(2, 1, 2, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    assert zeros.digest != bytes_of_it.digest


def test_digest_is_pinned() -> None:
    images = torch.arange(8, dtype=torch.uint8).reshape(2, 1, 2, 2)
    pinned = "6b38b01921c8ded37148aad84f84c647cd34478fdceab583ce26fedf588843e7"
    assert Split(images, torch.tensor([0, 1])).digest == pinned


WRONG: dict[str, Any] = {
    "rank": (torch.zeros(2, 4, 4), torch.zeros(2, dtype=torch.int64)),
    "doubles": (torch.zeros(2, 1, 4, 4).double(), torch.zeros(2, dtype=torch.int64)),
    "none": (torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64)),
    "NaN": (torch.full((2, 1, 4, 4), float("nan")), torch.zeros(2, dtype=torch.int64)),
}


@pytest.mark.parametrize(("images", "labels"), WRONG.values(), ids=WRONG)
def test_split_refuses(images: torch.Tensor, labels: torch.Tensor, snapshot: SnapshotAssertion) -> None:
    assert refused(Split, images, labels) == snapshot


def test_data_checks_its_splits(snapshot: SnapshotAssertion) -> None:
    assert data().shape == (3, 4, 4)
    assert list(data().splits) == ["train", "validation", "calibration", "test"]
    too_high = replace(split(), labels=torch.tensor([0, 1, 0, 1, 0, 2]))
    negative = replace(split(), labels=torch.tensor([0, 1, 0, 1, 0, -1]))
    for changes in (
        {"classes": ("a",)},
        {"test": too_high},
        {"validation": negative},
        {"calibration": split(4, (3, 5, 5))},
        {"train": split(8, classes=1)},
        {"mean": (0.5,)},
        {"std": (0.5, 0.5, 0.0)},
    ):
        assert refused(data, **changes) == snapshot


def test_to_keeps_a_shared_split_shared() -> None:
    shared = split(6)
    moved = data(validation=shared, test=shared).to("cpu")
    assert moved.validation is moved.test
    assert moved.train is not moved.test
    assert torch.equal(moved.test.images, shared.images)
    assert moved.test.digest == shared.digest


def test_statistics_match_floating_point() -> None:
    images = split(50).images
    mean, std = statistics(images)
    scaled = images.double() / 255
    assert torch.tensor(mean).allclose(scaled.mean((0, 2, 3)).float())
    assert torch.tensor(std).allclose(scaled.std((0, 2, 3), correction=0).float())


def test_statistics_of_constant_and_float_images() -> None:
    assert statistics(torch.full((3, 1, 2, 2), 51, dtype=torch.uint8)) == ((0.2,), (1.0,))
    assert statistics(torch.rand(3, 2, 4, 4)) == ((0.0, 0.0), (1.0, 1.0))


def test_normalize() -> None:
    images = split(40).images
    mean, std = map(torch.tensor, statistics(images))
    before = images.clone()
    result = normalize(images, mean, std)
    assert torch.equal(images, before)
    assert result.dtype == torch.float32
    assert result.mean((0, 2, 3)).abs().max() < 1e-5
    assert (result.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    expected = (images.double() / 255 - mean[:, None, None]) / std[:, None, None]
    assert torch.allclose(result, expected.float(), atol=1e-5)


def test_normalize_gives_the_same_bits_in_every_layout_and_batch() -> None:
    images = split(9).images
    mean, std = map(torch.tensor, statistics(images))
    whole = normalize(images, mean, std)
    last = normalize(images.contiguous(memory_format=torch.channels_last), mean, std)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, whole)
    assert torch.equal(torch.cat([normalize(part, mean, std) for part in images.split(2)]), whole)


def test_normalize_leaves_floats_alone() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert normalize(images, torch.ones(3), torch.full((3,), 2.0)) is images
