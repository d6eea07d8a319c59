import colorsys
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from offramp.data.images.corruptions import CORRUPTIONS, corrupted

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
STILL = {"contrast": 1.0, "brightness": 0.0, "blur": 0.0, "gaussian noise": 0.0}


@pytest.mark.parametrize("name", STILL)
def test_an_amount_that_changes_nothing_changes_no_bit(name: str) -> None:
    assert (corrupted(PIXELS, name, STILL[name], 0, range(6)) == PIXELS).all()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_seed_gives_the_same_bits_whatever_else_is_there(name: str) -> None:
    amount = CORRUPTIONS[name].small[2]
    whole = corrupted(PIXELS, name, amount, 5, range(6))
    assert (corrupted(PIXELS, name, amount, 5, range(6)) == whole).all()
    assert (corrupted(PIXELS[4:5], name, amount, 5, [4]) == whole[4:5]).all()
    noisy = "noise" in name
    assert (corrupted(PIXELS, name, amount, 6, range(6)) != whole).any() == noisy
    assert (corrupted(PIXELS[4:5], name, amount, 5, [3]) != whole[4:5]).any() == noisy


@pytest.mark.parametrize("images", [PIXELS, PIXELS[:, :1]], ids=["color", "gray"])
@pytest.mark.parametrize("sides", [(32, 32), (224, 64)], ids=["small", "large"])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_is_stronger_changes_more(
    name: str, sides: tuple[int, int], images: NDArray[np.uint8]
) -> None:
    amounts = CORRUPTIONS[name].amounts(*sides)
    assert amounts == (CORRUPTIONS[name].small if sides == (32, 32) else CORRUPTIONS[name].large)
    rows = range(len(images))
    changes = [
        np.abs(corrupted(images, name, amount, 0, rows).astype(float) - images).mean()
        for amount in amounts
    ]
    assert len(changes) == 5 and changes[0] > 0 and changes == sorted(changes)


def test_noise_has_the_deviation_that_it_names() -> None:
    gray = np.full((1, 3, 64, 64), 128, dtype=np.uint8)
    level = 128 / 255
    noise = corrupted(gray, "gaussian noise", 0.08, 0, [0]) / 255 - level
    assert abs(noise.std() - 0.08) < 0.004 and abs(noise.mean()) < 0.004
    photons = corrupted(gray, "shot noise", 100, 0, [0]) / 255 - level
    assert abs(photons.std() - (level / 100) ** 0.5) < 0.004 and abs(photons.mean()) < 0.004


def test_brightness_is_the_value_of_hsv_and_contrast_goes_to_the_mean() -> None:
    colors = np.array([(50, 20, 0), (0, 0, 0), (240, 30, 250)], dtype=np.uint8).T[None, :, None, :]
    brighter = corrupted(colors, "brightness", 0.2, 0, [0])[0, :, 0].T
    for before, after in zip(colors[0, :, 0].T, brighter, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255))
        expected = colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + 0.2))
        assert np.abs(after / 255 - expected).max() <= 0.5 / 255 + 1e-12
    two = np.array([[[[10, 50]]]], dtype=np.uint8)
    assert corrupted(two, "contrast", 0.5, 0, [0]).ravel().tolist() == [20, 40]


def test_jpeg_is_that_of_pillow() -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(file, "JPEG", quality=40)
    expected = np.asarray(Image.open(file)).transpose(2, 0, 1)
    assert (corrupted(PIXELS[:1], "jpeg", 40, 0, [0])[0] == expected).all()
