"""Views of images: pure functions of (seed, view, row), each against something that is surely right."""

from collections.abc import Mapping
from typing import Any, Literal

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms.v2 import functional as F

from offramp.augment import Augment, View, clash
from offramp.data.images.files import pixels as pixels_of
from offramp.data.images.geometry import picture
from offramp.data.views import (
    BOX,
    BOX_DRAWS,
    COLUMNS,
    RATIO,
    augmented,
    cut_draws,
    cut_out,
    draws,
    random_box,
)
from offramp.hashing import derive

VIEW = View(42, 3)
ROWS = torch.arange(200)

KINDS: Mapping[str, Augment] = {
    "flip": Augment(flip=True),
    "vertical flip": Augment(vertical_flip=True),
    "crop": Augment(crop=3),
    "reflected crop": Augment(crop=3, pad="reflect"),
    "resized crop": Augment(resized_crop=(0.2, 1.0)),
    "rotate": Augment(rotate=30),
    "jitter": Augment(jitter=0.4),
    "all but crop": Augment(True, True, 0, (0.08, 1.0), 15, 0.3),
    "crop and the rest": Augment(True, True, 4, None, 15, 0.3),
}


def images(count: int = 200, shape: tuple[int, int, int] = (3, 12, 10)) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, *shape), generator=generator).to(torch.uint8)


def seen(augment: Augment, pixels: Tensor, rows: Tensor, view: View = VIEW) -> Tensor:
    """What `rows` look like, as loaders make it."""
    cut = pixels[rows]
    if augment.resized_crop is not None:
        size = (pixels.shape[2], pixels.shape[3])
        drawn = cut_draws(view, rows)
        cut = torch.stack(
            [pixels_of(cut_out(augment, picture(i), d, size)) for i, d in zip(cut, drawn, strict=True)]
        )
    return augmented(augment, cut, draws(view, rows))


# The numbers


def reference(view: View, row: int, column: int) -> float:
    """SplitMix64 with Python's own whole numbers."""
    mask = 2**64 - 1
    start = derive(view.seed, "augment", view.number)
    z = (start + (row * COLUMNS + column + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) / 2**53


def test_draws_are_splitmix64() -> None:
    rows = [0, 1, 77, 1_281_166]
    numbers = draws(VIEW, torch.tensor(rows))
    assert numbers.tolist() == [[reference(VIEW, r, c) for c in range(COLUMNS)] for r in rows]


def test_draws_are_uniform_and_unrelated() -> None:
    numbers = draws(VIEW, torch.arange(20_000))
    assert numbers.min() >= 0 and numbers.max() < 1
    assert (numbers.mean(0) - 0.5).abs().max() < 0.01
    assert (numbers.var(0) - 1 / 12).abs().max() < 0.002
    others = [draws(View(42, 4), torch.arange(20_000)), draws(View(43, 3), torch.arange(20_000))]
    both = torch.cat([numbers, numbers.roll(1, 0), *others], dim=1)
    relations = torch.corrcoef(both.T) - torch.eye(both.shape[1])
    assert relations.abs().max() < 0.04


# A view does not depend on what stands beside it


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_is_the_same_alone_and_in_any_batch(kind: str) -> None:
    augment, pixels = KINDS[kind], images()
    together = seen(augment, pixels, ROWS)
    assert together.dtype == torch.uint8 and together.shape == pixels.shape
    assert not torch.equal(together, pixels)
    mixed = ROWS.flip(0)[::3]
    assert torch.equal(seen(augment, pixels, mixed), together[mixed])
    for row in (0, 57, 199):
        assert torch.equal(seen(augment, pixels, torch.tensor([row]))[0], together[row])
    assert torch.equal(seen(augment, pixels, torch.tensor([5, 5, 5])), together[[5, 5, 5]])


@pytest.mark.parametrize("kind", KINDS)
def test_seed_and_number_make_another_view(kind: str) -> None:
    augment, pixels = KINDS[kind], images()
    usual = seen(augment, pixels, ROWS)
    for view in (View(42, 4), View(43, 3)):
        assert not torch.equal(seen(augment, pixels, ROWS, view), usual)


@pytest.mark.parametrize("kind", ["crop and the rest", "all but crop"])
def test_threads_do_not_change_a_bit(kind: str) -> None:
    pixels = images(3, (3, 301, 299))
    before = torch.get_num_threads()
    views = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        views.append(seen(KINDS[kind], pixels, torch.arange(3)))
    torch.set_num_threads(before)
    assert torch.equal(*views)


def test_one_kind_leaves_the_draws_of_another_alone() -> None:
    pixels = images()
    both = seen(Augment(flip=True, vertical_flip=True), pixels, ROWS)
    flipped = seen(Augment(flip=True), pixels, ROWS)
    assert torch.equal(seen(Augment(vertical_flip=True), flipped, ROWS), both)


# What each kind does


def test_flips_turn_half_of_the_images() -> None:
    pixels = images()
    for augment, dim in ((Augment(flip=True), 3), (Augment(vertical_flip=True), 2)):
        views = seen(augment, pixels, ROWS)
        turned = pixels.flip(dim)
        same = [torch.equal(f, p) for f, p in zip(views, pixels, strict=True)]
        assert 70 < sum(same) < 130
        assert all(s or torch.equal(f, t) for s, f, t in zip(same, views, turned, strict=True))


def test_an_alternating_flip_turns_each_image_every_other_time() -> None:
    pixels, augment = images(), Augment(alternating_flip=True)
    first, second, third = (seen(augment, pixels, ROWS, augment.view(42, epoch)) for epoch in range(3))
    turned = pixels.flip(3)
    same = [torch.equal(f, p) for f, p in zip(first, pixels, strict=True)]
    assert 70 < sum(same) < 130
    assert torch.equal(second, first.flip(3)) and torch.equal(third, first)
    assert all(s or torch.equal(f, t) for s, f, t in zip(same, first, turned, strict=True))
    other = seen(augment, pixels, ROWS, augment.view(43, 0))
    assert not torch.equal(other, first) and not torch.equal(other, second)
    boxed = Augment(alternating_flip=True, resized_crop=(1.0, 1.0))  # the same choice, image by image
    square = images(shape=(3, 10, 10))
    assert torch.equal(
        seen(boxed, square, ROWS, boxed.view(42, 0)), seen(augment, square, ROWS, augment.view(42, 0))
    )


@pytest.mark.parametrize("kind", ["black", "reflect"])
def test_a_crop_is_a_window_of_the_padded_image_and_all_windows_occur(
    kind: Literal["black", "reflect"],
) -> None:
    pixels = images()
    modes = {"black": "constant", "reflect": "reflect"}
    padded = pad(pixels.float(), (2, 2, 2, 2), modes[kind]).to(torch.uint8)
    views = seen(Augment(crop=2, pad=kind), pixels, ROWS)
    places = set()
    for image, around in zip(views, padded, strict=True):
        windows = around.unfold(1, 12, 1).unfold(2, 10, 1)  # [C, 5, 5, H, W]
        ((top, left),) = (windows == image[:, None, None]).all(0).all(-1).all(-1).nonzero().tolist()
        places.add((top, left))
    assert places == {(top, left) for top in range(5) for left in range(5)}


def test_a_resized_crop_is_the_box_and_nothing_of_what_is_around_it() -> None:
    pixels = images()
    augment = Augment(resized_crop=(0.2, 0.9))
    views = seen(augment, pixels, ROWS)
    for row in (0, 50, 199):
        drawn = draws(VIEW, torch.tensor([row]))[0, BOX : BOX + BOX_DRAWS].tolist()
        top, left, height, width = random_box(12, 10, (0.2, 0.9), drawn)
        part = picture(pixels[row, :, top : top + height, left : left + width])
        expected = part.resize((10, 12), Image.Resampling.BILINEAR)
        assert torch.equal(views[row], pixels_of(expected))


def test_boxes_are_flipped_as_whole_images_are() -> None:
    pixels, boxes = images(), (0.2, 0.9)
    cut = seen(Augment(resized_crop=boxes), pixels, ROWS)
    for flips in ({"flip": True}, {"vertical_flip": True}, {"flip": True, "vertical_flip": True}):
        views = seen(Augment(resized_crop=boxes, **flips), pixels, ROWS)
        assert torch.equal(views, seen(Augment(**flips), cut, ROWS)) and not torch.equal(views, cut)


def test_boxes_keep_to_area_and_ratio_and_go_everywhere() -> None:
    drawn = draws(VIEW, torch.arange(2000))[:, BOX : BOX + BOX_DRAWS].tolist()
    boxes = [random_box(300, 400, (0.1, 0.5), numbers) for numbers in drawn]
    for top, left, height, width in boxes:
        assert 0 <= top <= 300 - height and 0 <= left <= 400 - width
        assert 0.099 < height * width / 120_000 < 0.501
        assert RATIO[0] - 0.02 < width / height < RATIO[1] + 0.02
    shares = torch.tensor([h * w / 120_000 for _, _, h, w in boxes])
    assert (shares.mean() - 0.3).abs() < 0.01
    assert min(t for t, *_ in boxes) == 0 and max(t + h for t, _, h, _ in boxes) == 300
    assert min(left for _, left, *_ in boxes) == 0 and max(x + w for _, x, _, w in boxes) == 400


def test_where_no_box_fits_the_largest_in_the_middle_is_taken() -> None:
    assert random_box(10, 100, (1.0, 1.0), [0.5] * BOX_DRAWS) == (0, 43, 10, 13)
    assert random_box(100, 10, (1.0, 1.0), [0.5] * BOX_DRAWS) == (43, 0, 13, 10)


def test_rotation_stays_within_its_angle() -> None:
    bar = torch.zeros(200, 1, 41, 41, dtype=torch.uint8)
    bar[:, :, 20] = 255
    views = seen(Augment(rotate=20), bar, ROWS)
    outer = views[:, 0, :, 38].argmax(1) - 20  # 18 px from the middle
    limit = 18 * torch.tan(torch.tensor(20 * torch.pi / 180))
    assert outer.abs().max() <= limit.ceil() and outer.max() > 4 and outer.min() < -4


def test_jitter_is_torchvisions_blend() -> None:
    """Each of the three alone, where the others' factors are 1."""
    pixels = images()
    for column, adjust in ((5, F.adjust_brightness), (6, F.adjust_contrast), (7, F.adjust_saturation)):
        drawn = torch.full((200, COLUMNS), 0.5, dtype=torch.float64)
        drawn[:, column] = draws(VIEW, ROWS)[:, column]
        views = augmented(Augment(jitter=0.4), pixels, drawn)
        factors = (1 + (drawn[:, column] * 2 - 1) * 0.4).tolist()
        expected = [adjust(p, f) for p, f in zip(pixels, factors, strict=True)]
        # Their gray is rounded a little differently from ours.
        assert (views.int() - torch.stack(expected).int()).abs().max() <= 1


def test_gray_and_float_images_can_be_moved() -> None:
    gray = images(shape=(1, 12, 10))
    assert seen(Augment(True, True, 2, None, 10, 0.3), gray, ROWS).shape == gray.shape
    floats = gray.to(torch.float32) / 255 - 0.5
    moved = seen(Augment(True, True, 2), floats, ROWS)
    pixels = seen(Augment(True, True, 2), gray, ROWS)
    inside = moved != 0  # around float images is zero, which is their mean
    assert torch.equal(moved[inside], (pixels.to(torch.float32) / 255 - 0.5)[inside])


# The declaration


def test_views_take_turns() -> None:
    endless, three = Augment(flip=True), Augment(flip=True, views=3)
    assert [endless.view(1, e).number for e in range(5)] == [0, 1, 2, 3, 4]
    assert [three.view(1, e).number for e in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert (endless.distinct(7), three.distinct(7), three.distinct(2)) == (7, 3, 2)
    alone, shifted = Augment(alternating_flip=True), Augment(alternating_flip=True, crop=2)
    assert (alone.distinct(7), shifted.distinct(7)) == (2, 7)
    assert [alone.view(1, e).number for e in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    "fields",
    [
        {"flip": True, "alternating_flip": True},
        {"alternating_flip": True, "views": 3},
        {"flip": True, "pad": "reflect"},
    ],
)
def test_fields_that_do_not_go_together_are_named(fields: dict[str, Any]) -> None:
    fault = clash(Augment(**fields))
    assert fault is not None and fault[0] == list(fields)[1]


def test_a_label_names_what_is_set() -> None:
    assert str(Augment(flip=True, crop=4, views=8)) == "crop 4, flip, 8 views"
    everything: dict[str, Any] = {"resized_crop": (0.08, 1.0), "rotate": 10, "jitter": 0.2}
    assert str(Augment(vertical_flip=True, **everything)) == (
        "resized crop 0.08 to 1, vertical flip, rotate 10°, jitter 0.2"
    )
