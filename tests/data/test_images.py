"""Image files of every mode, and what becomes of their size and channels."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import as_tensor, noise, refused, save, smooth
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from ghostscript import EPS, trap
from offramp.data.images.files import Files, open_image, pixels, stacked
from offramp.data.images.geometry import Geometry, picture
from wording import refusal


def opened(path: Path) -> torch.Tensor:
    return pixels(open_image(path, str(path)))


def test_png_is_read_to_the_bit(tmp_path: Path) -> None:
    assert torch.equal(opened(save(tmp_path / "a.png", noise(1))), as_tensor(noise(1)))


def test_gray_is_repeated(tmp_path: Path) -> None:
    gray = noise(1)[..., 0]
    image = opened(save(tmp_path / "a.png", gray))
    assert torch.equal(image, torch.from_numpy(gray).expand(3, -1, -1))
    bits = opened(save(tmp_path / "b.png", Image.fromarray(gray).convert("1")))
    assert set(bits.unique().tolist()) <= {0, 255}


def test_transparency_is_dropped(tmp_path: Path) -> None:
    alpha = np.dstack([noise(1), np.full((6, 6), 9, np.uint8)])
    assert torch.equal(opened(save(tmp_path / "a.png", alpha)), as_tensor(noise(1)))
    gray = Image.fromarray(noise(1)[..., 0]).convert("LA")
    assert torch.equal(opened(save(tmp_path / "b.png", gray))[0], as_tensor(noise(1))[0])


@pytest.mark.parametrize("transparency", [None, 0, bytes(range(16))])
def test_a_palette_becomes_its_colors(tmp_path: Path, transparency: int | bytes | None) -> None:
    image = Image.fromarray(smooth(8, 8)).quantize(16)
    how = {} if transparency is None else {"transparency": transparency}
    colors = opened(save(tmp_path / "a.png", image, **how))
    assert torch.equal(colors, pixels(image.convert("RGB")))


def test_cmyk_jpeg_has_its_colors(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(smooth()).convert("CMYK"), quality=95)
    with Image.open(path) as stored:
        assert stored.mode == "CMYK"
    difference = opened(path).int() - as_tensor(smooth()).int()
    assert difference.abs().max() < 12


def test_exif_turns_an_image_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored image is to be turned clockwise
    sideways = np.rot90(smooth()).copy()
    path = save(tmp_path / "a.jpg", sideways, exif=exif, quality=95)
    image = opened(path)
    assert image.shape == (3, 32, 48)
    assert (image.int() - as_tensor(smooth()).int()).abs().max() < 12
    plain = opened(save(tmp_path / "b.jpg", sideways, quality=95))
    assert plain.shape == (3, 48, 32)


def test_deep_and_damaged_images_are_named(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    deep = save(tmp_path / "deep.tiff", np.full((6, 6), 4e4, np.float32))
    assert refused(opened, deep) == snapshot
    whole = save(tmp_path / "cut.jpg", smooth())
    whole.write_bytes(whole.read_bytes()[:400])
    empty, text, gone = tmp_path / "empty.png", tmp_path / "text.png", tmp_path / "gone.png"
    empty.touch()
    text.write_text("not an image")
    for path in (whole, empty, text, gone):
        line = refused(opened, path)
        assert line == snapshot and line.count(path.name) == 1


def test_a_png_is_read_by_its_checksums() -> None:
    """The control: Pillow alone reads past some of them."""
    buffer = io.BytesIO()
    Image.fromarray(smooth()).save(buffer, "PNG")
    whole, silent = buffer.getvalue(), 0
    for at in range(whole.index(b"IDAT") + 4, whole.index(b"IEND") - 8):
        broken = whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :]
        for damaged in (broken, whole[:at]):
            assert refused(open_image, damaged, "a.png").startswith("a.png is no readable image")
        with contextlib.suppress(Exception):
            Image.open(io.BytesIO(broken)).load()
            silent += 1
    assert silent


def test_files_are_read_by_row_in_threads_as_one_by_one(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    names = tuple(f"{i}.png" for i in range(40))
    for i, name in enumerate(names):
        save(tmp_path / name, noise(i))
    files = Files(tmp_path, names)
    rows = torch.tensor([1, 7, 8, 39])
    expected = torch.stack([as_tensor(noise(i)) for i in rows.tolist()])

    def read(files: Files, rows: torch.Tensor) -> torch.Tensor:
        return stacked(lambda row: pixels(files.open(row)), rows.tolist(), files.name)[0]

    assert torch.equal(read(files, rows), expected)
    assert torch.equal(read(files.only(rows), torch.arange(4)), expected)
    assert files.paths[7] == tmp_path / "7.png"
    save(tmp_path / "8.png", noise(0, 5, 6))
    assert refused(read, files, rows) == snapshot


def test_the_shorter_side_is_scaled_and_the_middle_cut_out() -> None:
    image = Image.fromarray(smooth(32, 48))
    assert torch.equal(Geometry(32).of(image), as_tensor(smooth()[:, 8:40]))
    assert torch.equal(Geometry(20, 32).of(image), as_tensor(smooth()[6:26, 14:34]))
    small = image.resize((24, 16), Image.Resampling.BILINEAR)
    assert torch.equal(Geometry(16).of(image), as_tensor(np.array(small))[:, :, 4:20])
    upright = Image.fromarray(smooth(48, 32))
    assert torch.equal(Geometry(32).of(upright), as_tensor(smooth(48, 32)[8:40]))
    assert Geometry(224, 256).of(Image.fromarray(noise(0, 7, 500))).shape == (3, 224, 224)


def test_stretching_keeps_the_whole_image() -> None:
    image = Image.fromarray(smooth())
    expected = image.resize((16, 16), Image.Resampling.BILINEAR)
    assert torch.equal(Geometry(16, fit="stretch").of(image), as_tensor(np.array(expected)))


def test_channels_as_pillow_weighs_them() -> None:
    batch = torch.stack([as_tensor(noise(i, 16, 16)) for i in range(8)])
    gray = Geometry(channels=1).of_batch(batch)
    image = Image.fromarray(noise(3, 16, 16))
    assert torch.equal(gray[3], Geometry(channels=1).of(image))
    assert torch.equal(gray[3, 0], torch.from_numpy(np.array(image.convert("L"))))
    again = Geometry(channels=3).of_batch(gray)
    assert again.shape == batch.shape
    assert torch.equal(Geometry(channels=1).of_batch(again), gray)
    assert torch.equal(Geometry(channels=3).of_batch(gray / 7)[:, 2], gray[:, 0] / 7)


def test_a_batch_is_scaled_as_its_images(snapshot: SnapshotAssertion) -> None:
    batch = torch.stack([as_tensor(noise(i, 16, 24)) for i in range(4)])
    geometry = Geometry(8, 10, channels=1)
    expected = torch.stack([geometry.of(picture(image)) for image in batch])
    assert torch.equal(geometry.of_batch(batch), expected)
    whole = batch[..., :16]
    assert Geometry(16).of_batch(whole) is whole
    assert refused(Geometry(8).of_batch, batch.float()) == snapshot
    assert refused(Geometry(8).of_batch, batch[:, :2]) == snapshot
    assert refused(Geometry(channels=3).of_batch, batch[:, :2]) == snapshot


@pytest.mark.parametrize(
    "fields",
    [
        {"size": 32, "resize": 16},
        {"resize": 16},
        {"size": 8, "resize": 9, "fit": "stretch"},
        {"size": 10**6},
        {"channels": 2},
    ],
    ids=str,
)
def test_geometry_refuses(fields: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    assert refused(Geometry, **fields) == snapshot


def test_an_eps_that_is_called_png_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = trap(tmp_path, monkeypatch)
    file = tmp_path / "a.png"
    file.write_bytes(EPS)
    for image in (file, EPS):
        assert "none of BMP, GIF" in refusal(open_image, image, str(file))
    assert not mark.exists()


@pytest.mark.parametrize("ending", ["bmp", "gif", "jpg", "pbm", "pgm", "png", "ppm", "tiff", "webp"])
def test_every_ending_is_read(tmp_path: Path, ending: str) -> None:
    mode = {"pbm": "1", "pgm": "L"}.get(ending, "RGB")
    image = Image.fromarray(smooth()).convert(mode)
    assert opened(save(tmp_path / f"a.{ending}", image)).shape == (3, image.height, image.width)


def test_a_photo_of_several_pictures_is_read(tmp_path: Path) -> None:
    """Phones write such JPEGs, which Pillow calls MPO."""
    picture = Image.fromarray(smooth())
    picture.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[picture])
    assert opened(tmp_path / "a.jpg").shape == (3, picture.height, picture.width)
