"""A contact sheet: images of every class, what trains beside what is evaluated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from offramp.augment import Augment
from offramp.data.audit import UnreadData
from offramp.data.dataset import check_augment
from offramp.data.images.files import StoredImages, pixels
from offramp.data.images.geometry import Geometry, picture
from offramp.data.splits import Subset, class_counts
from offramp.data.views import augmented, cut_draws, cut_out, draws
from offramp.errors import OfframpError
from offramp.labels import several

CELL = 84  # px, of an image
GAP = 8
LABEL = 190  # px, of the names
EDGE = 24
HEAD = 92
MOST_CLASSES = 24
VIEWS = 3  # of each image, where images are augmented
COLUMNS = 12
INK, GRAY, PAPER, LINE, FRAME = "#1a1a1a", "#6b6b6b", "#ffffff", "#e2e2e2", "#1f6feb"


def sheet(data: UnreadData, name: str, augment: Augment | None, seed: int = 42) -> Image.Image:
    """Training images as networks get them, a row for each of the first MOST_CLASSES classes. Where
    `augment` is there: each as it is, then views that train, of epochs 0, 1, 2. name: of the data set.
    """
    classes = data.classes
    rows = classes[:MOST_CLASSES]
    part = data.parts["train"]
    groups, apart = (COLUMNS, 0) if augment is None else (COLUMNS // (1 + VIEWS), 2 * GAP)
    width = 2 * EDGE + LABEL + COLUMNS * (CELL + GAP) - GAP + (groups - 1) * apart
    page = Image.new("RGB", (width, HEAD + len(rows) * (CELL + GAP) + EDGE), PAPER)
    pen = ImageDraw.Draw(page)
    counts = class_counts(part.labels, len(classes))
    more = f", the first {len(rows)} of {len(classes)} classes" if len(rows) < len(classes) else ""
    pen.text((EDGE, 18), f"{name}: training images{more}", INK, _font(22))
    legend = "as they are evaluated"
    if augment is not None:
        legend = f"framed: as they are evaluated; beside it: views that train ({augment})"
    pen.text((EDGE, 52), legend, GRAY, _font(15))
    pen.line((EDGE, HEAD - 10, width - EDGE, HEAD - 10), LINE)
    for number, label in enumerate(rows):
        top = HEAD + number * (CELL + GAP)
        pen.text((EDGE, top + CELL // 2 - 18), _short(label, _font(16)), INK, _font(16))
        pen.text((EDGE, top + CELL // 2 + 4), f"{counts[number]:,} images", GRAY, _font(13))
        left = EDGE + LABEL
        for position in _readable(part, number, groups):
            for place, image in enumerate(_cells(part, position, data.geometry, augment, seed)):
                page.paste(_fitted(image), (left, top))
                if augment is not None and place == 0:
                    frame = (left - 3, top - 3, left + CELL + 2, top + CELL + 2)
                    pen.rectangle(frame, outline=FRAME, width=3)
                left += CELL + GAP
            left += apart
    return page


def _readable(part: Subset, label: int, count: int) -> list[int]:
    """Positions in the part of the first images of a class that can be read."""
    readable: list[int] = []
    here = part.labels[:, label] > 0 if several(part.labels) else part.labels == label
    for position in here.nonzero().flatten().tolist():
        if len(readable) == count:
            break
        try:
            _stored(part, position)
        except OfframpError:
            continue
        readable.append(position)
    return readable


def _stored(part: Subset, position: int) -> Image.Image | Tensor:
    source, row = part.source.images, part.rows[position]
    return source.open(int(row)) if isinstance(source, StoredImages) else part.source.read(row[None])[0]


def _cells(
    part: Subset, position: int, geometry: Geometry, augment: Augment | None, seed: int
) -> Sequence[Tensor]:
    """An image as it is evaluated, and views of it, each [C, H, W]."""
    stored = _stored(part, position)
    plain = geometry.of(stored)
    if augment is None:
        return [plain]
    check_augment(augment, tuple(plain.shape), plain.dtype)
    whole: Image.Image | None = None
    if augment.resized_crop is not None:
        whole = picture(plain) if isinstance(stored, Tensor) else geometry.whole(stored)
    cells, row = [plain], torch.tensor([position])
    for number in range(VIEWS):
        view = augment.view(seed, number)
        image = plain
        if whole is not None:
            (box,) = cut_draws(view, row)
            image = pixels(cut_out(augment, whole, box, (plain.shape[1], plain.shape[2])))
        cells.append(augmented(augment, image[None], draws(view, row))[0])
    return cells


def _fitted(image: Tensor) -> Image.Image:
    """An image in a cell: small ones in whole pixels, large ones smoothly, nothing cut off."""
    if image.is_floating_point():
        low, high = image.min(), image.max()
        image = ((image - low) / (high - low).clamp(min=1e-12) * 255).to(torch.uint8)
    if len(image) not in (1, 3):
        image = image[:1]
    small = picture(image)
    scale = CELL / max(small.size)
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    resampling = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    cell = Image.new("RGB", (CELL, CELL), LINE)
    place = ((CELL - size[0]) // 2, (CELL - size[1]) // 2)
    cell.paste(small.convert("RGB").resize(size, resampling), place)
    return cell


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _short(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """A name that fits beside its row."""
    if font.getlength(text) <= LABEL - 16:
        return text
    while font.getlength(text + "…") > LABEL - 16:
        text = text[:-1]
    return text + "…"
