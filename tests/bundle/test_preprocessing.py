"""Pictures become the pixels that the trial was trained on."""

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from offramp.bundle import runtime
from offramp.bundle.export import preprocessing
from offramp.data import normalize
from offramp.data.images.files import open_image, pixels
from offramp.data.images.geometry import Geometry
from offramp.infer import image_files
from offramp.preprocessing import Preprocessing, from_json
from records import manifest

COLOR = Preprocessing((8, 6), 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
GRAY = Preprocessing((8, 6), 1, (0.3,), (0.4,))
NOISE = np.random.default_rng(0).integers(0, 256, (8, 6, 4), dtype=np.uint8)


def picture(mode: str) -> Image.Image:
    return Image.fromarray(NOISE[:, :, :3]).convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_color_pixels_are_those_of_the_training_decoder(mode: str) -> None:
    image = Image.fromarray(NOISE) if mode == "RGBA" else picture(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    trained = pixels(open_image(buffer.getvalue(), "file"))
    assert np.array_equal(COLOR.pixels(Image.open(buffer)), trained.numpy())


def files() -> dict[str, bytes]:
    """Image files of every kind that people have, 8 by 6 pixels once they are upright."""
    alpha = Image.fromarray(NOISE)
    deep = np.random.default_rng(3).integers(0, 65536, (8, 6), dtype=np.uint16)
    sideways = Image.Exif()
    sideways[0x0112] = 6
    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "16 bits": (Image.fromarray(deep), "PNG", {}),
        "16 bits, TIFF": (Image.fromarray(deep), "TIFF", {}),
        "16 bits, the other end first": (Image.fromarray(deep.astype(">u2")), "TIFF", {}),
        "16 bits, PGM": (Image.fromarray(deep), "PPM", {}),
        "CMYK": (picture("CMYK"), "JPEG", {}),
        "CMYK, TIFF": (picture("CMYK"), "TIFF", {}),
        "palette": (picture("RGB").quantize(16), "PNG", {}),
        "palette with a hole": (picture("RGB").quantize(16), "PNG", {"transparency": 3}),
        "palette, GIF": (picture("P"), "GIF", {}),
        "alpha": (alpha, "PNG", {}),
        "gray with alpha": (alpha.convert("LA"), "PNG", {}),
        "two levels": (picture("1"), "PNG", {}),
        "on its side": (picture("RGB").rotate(90, expand=True), "JPEG", {"exif": sideways}),
        "gray, on its side": (picture("L").rotate(90, expand=True), "JPEG", {"exif": sideways}),
        "YCbCr": (picture("YCbCr"), "JPEG", {}),
        "EXIF that is none": (picture("RGB"), "JPEG", {"exif": b"Exif\0\0" + b"\xff" * 20}),
    }
    contents = {}
    for name, (image, kind, how) in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **how)
        contents[name] = buffer.getvalue()
    return contents


FILES = files()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_road_makes_the_same_pixels_of_a_file(name: str, channels: Any, tmp_path: Path) -> None:
    """Training, `predict` and a bundle's `run.py`."""
    trained = Geometry(channels=channels).of(open_image(FILES[name], name)).numpy()
    how = replace(COLOR if channels == 3 else GRAY, gray=True)
    path = tmp_path / "file"
    path.write_bytes(FILES[name])
    good, damaged = image_files.check([path], how)
    assert good and not damaged
    answered = image_files.read(path, how)
    assert np.array_equal(answered, trained) and trained.std() > 0
    bundle: Any = SimpleNamespace(preprocessing=how)
    assert np.array_equal(how.pixels(runtime.opened(path, bundle)), trained)


def test_of_sixteen_bits_the_upper_eight_are_taken(tmp_path: Path) -> None:
    deep = np.arange(48, dtype=np.uint16).reshape(8, 6) * 1300
    assert np.array_equal(GRAY.pixels(Image.fromarray(deep))[0], deep >> 8)
    Image.fromarray(deep).save(tmp_path / "a.pgm")  # `I` to Pillow, as numbers of 32 bits are
    assert np.array_equal(np.array(open_image(tmp_path / "a.pgm", "a"))[..., 0], deep >> 8)


def test_a_png_is_read_by_its_checksums(tmp_path: Path) -> None:
    """Pillow reads on over damaged pixels; training, which the bundle follows, does not."""
    how = Preprocessing((8, 8), 3, (0.5,) * 3, (0.2,) * 3)
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    with Image.open(path) as image:
        assert how.batch([image]).shape == (1, 3, 8, 8)
    at = whole.index(b"IDAT") + 20
    for damaged in (whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :], whole[:45] + bytes(2**16)):
        path.write_bytes(damaged)
        with Image.open(path) as image, pytest.raises(ValueError, match="image 0 cannot"):
            how.batch([image])


def test_normalized_as_training_does_to_the_bit() -> None:
    pixels = NOISE[:, :, :3].transpose(2, 0, 1)[None]
    expected = normalize(torch.tensor(pixels), torch.tensor(COLOR.mean), torch.tensor(COLOR.std))
    assert np.array_equal(COLOR.normalized(pixels), expected.numpy())


@pytest.mark.parametrize(
    ("how", "width", "height"),
    [(COLOR, 6, 9), (COLOR, 5, 8), (GRAY, 8, 6), (replace(COLOR, resize=4, crop=True), 20, 10)],
)
def test_other_sizes_are_refused(how: Preprocessing, width: int, height: int) -> None:
    with pytest.raises(ValueError, match=f"{width}×{height} pixels"):
        how.check("L", width, height)


def test_other_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="in color"):
        GRAY.pixels(picture("RGB"))
    with pytest.raises(ValueError, match="mode F"):
        COLOR.check("F", 6, 8)
    assert replace(GRAY, gray=True).pixels(picture("RGB")).shape == (1, 8, 6)


@pytest.mark.parametrize(("width", "height"), [(50, 40), (40, 66), (24, 24)])
def test_resize_and_crop_as_torchvision(width: int, height: int) -> None:
    image = Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )
    how = Preprocessing((16, 16), 3, (0.0,) * 3, (0.5,) * 3, resize=20, crop=True)
    expected = functional.center_crop(functional.resize(image, [20]), [16, 16])
    assert np.array_equal(how.pixels(image), np.asarray(expected).transpose(2, 0, 1))
    squeezed = replace(how, resize=(16, 16), crop=False, interpolation="bicubic")
    expected = image.resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(squeezed.pixels(image), np.asarray(expected).transpose(2, 0, 1))


def test_json_and_back() -> None:
    for how in (COLOR, GRAY, replace(COLOR, resize=(9, 9), crop=True), replace(COLOR, resize=8)):
        assert from_json(json.loads(json.dumps(how.as_json()))) == how


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"channels": 2}, "channels"),
        ({"size": [0, 8]}, "size"),
        ({"resize": 0}, "resize"),
        ({"interpolation": "cubic"}, "cubic"),
        ({"mean": [0.1]}, "mean"),
        ({"std": [0.0, 1.0, 1.0]}, "std"),
        ({"flip": True}, "flip"),
    ],
)
def test_wrong_json_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        from_json(COLOR.as_json() | change)


def test_of_a_trial() -> None:
    def of(shape: list[int], **geometry: Any) -> Preprocessing:
        provenance = {"geometry": geometry} if geometry else {}
        data = manifest().data.as_json() | {"provenance": provenance}
        return preprocessing(manifest(input_shape=shape, data=data))

    assert of([1, 8, 6]) == GRAY
    square = replace(GRAY, size=(8, 8), gray=True)
    size: dict[str, Any] = {"size": 8, "resize": None, "fit": "crop", "channels": 1}
    assert of([1, 8, 8], **size) == replace(square, resize=8, crop=True)
    assert of([1, 8, 8], **size | {"resize": 10}) == replace(square, resize=10, crop=True)
    stretched = size | {"fit": "stretch", "channels": None}
    assert of([1, 8, 8], **stretched) == replace(square, resize=(8, 8), gray=False)
    assert not manifest().normalized and manifest(mean=[0.0], std=[1.0]).normalized
