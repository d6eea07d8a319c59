import json
from pathlib import Path

import pytest
from handmade import evidence, simple
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from offramp.api.options import formats_of
from offramp.errors import OfframpError
from offramp.report.figures import draw
from offramp.report.model import Figure
from offramp.report.render.charts import FORMATS, SCALE, rendered, save
from wording import refusal


@pytest.fixture(scope="module")
def figure() -> Figure:
    return draw(evidence([simple("joint", 1), simple("separate", 1)]), ["time-total"]).figures[0]


def test_a_figure_is_saved_in_every_format(figure: Figure, tmp_path: Path) -> None:
    paths = save(figure, tmp_path / "out", ("svg", "pdf", "png", "json"))
    assert [p.name for p in paths] == [
        f"time-total-net-images.{k}" for k in ("svg", "pdf", "png", "json")
    ]
    svg, pdf, png, spec = (p.read_bytes() for p in paths)
    assert svg.partition(b">")[2].startswith(b'<rect width="100%" height="100%" fill="white"/>')
    assert svg.startswith(b"<svg") and b"separate" in svg and b"training time" in svg
    assert pdf.startswith(b"%PDF-") and b"%%EOF" in pdf[-10:]
    with Image.open(paths[2]) as image:
        assert image.getpixel((0, 0))[:3] == (255, 255, 255)
        assert image.width <= SCALE * 400  # a phone's width
    assert json.loads(spec)["datasets"] == figure.spec["datasets"]
    assert png != svg


def test_the_same_figure_gives_the_same_bytes(figure: Figure) -> None:
    formats = ("svg", "png", "json")
    assert rendered(figure, formats) == rendered(figure, formats)


def test_formats_are_checked(snapshot: SnapshotAssertion) -> None:
    assert formats_of(" png,SVG, svg,", FORMATS) == ("svg", "png")
    assert refusal(formats_of, "gif", FORMATS) == snapshot
    assert refusal(formats_of, " ,", FORMATS) == snapshot


def test_a_place_that_cannot_be_written_is_named(figure: Figure, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OfframpError, match="cannot write"):
        save(figure, tmp_path / "file", ("json",))
