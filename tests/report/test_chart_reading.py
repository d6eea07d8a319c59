"""What a reader can make out in a chart: shades, ticks, letters, numbers, lines on one another."""

import itertools
import math
import re
from typing import Any

import pandas as pd
import pytest
from handmade import HandTrial, Run, evidence, simple
from specs import views
from syrupy.assertion import SnapshotAssertion

from offramp.report.colors import DARK, both_colors, config, themed
from offramp.report.figures import compute, curves, draw, reliability
from offramp.report.figures.chart import WIDTH, coinciding
from offramp.report.figures.significance import TALL, half, ring, texts
from offramp.report.model import Figure
from offramp.report.render.charts import rendered, text

MINE = "/home/somebody/thesis/code/strategies/mine.py:students_{}"
SHADE = r'aria-roledescription="rect mark"[^>]*? opacity="([\d.]+)"'
MANY = ("joint", "separate", "branch-wise", "two-stage", "distillation", "mine")


@pytest.fixture(scope="module")
def drawn() -> tuple[Figure, ...]:
    """All figures of two strategies."""
    whole = evidence([simple(label, seed) for label in ("joint", "mine") for seed in (1, 2, 3)])
    return draw(whole).figures


def test_no_scale_lies_between_colors_that_a_page_has_two_of(drawn: tuple[Figure, ...]) -> None:
    """A page writes colors as `light-dark(…)`, between two of which Vega finds nothing: what changes
    with a number is opacity."""
    colors = []
    for figure in drawn:
        for view in views(both_colors(figure.spec)):
            for channel in ("color", "fill"):
                encoded = view["encoding"].get(channel, {})
                if encoded.get("type") == "quantitative":
                    colors.append((figure.name, encoded))
    assert colors == []


def test_agreement_is_shaded_by_its_share_on_the_page_and_in_the_file() -> None:
    right = {1: [True, True, False, False], 2: [True, False, False, False], 3: [True] * 4}
    whole = evidence([simple("joint", 1, right=right)])
    (figure,) = reliability.agreement(whole.runs[0])
    (cells,) = [v for v in views(dict(figure.spec)) if v["mark"]["type"] == "rect"]
    low, high = cells["encoding"]["opacity"]["scale"]["range"]
    assert 0 <= low < high <= 1 and cells["mark"]["color"] in DARK
    svg = rendered(figure, ["svg"])["svg"].decode()
    assert len({float(x) for x in re.findall(SHADE, svg)}) == 3  # 75 %, 50 % and 25 % agree


def test_ticks_have_their_labels_below_them(drawn: tuple[Figure, ...]) -> None:
    import vl_convert

    for figure in drawn:
        vega: Any = vl_convert.vegalite_to_vega(text(themed(figure.spec)), vl_version="6.4")
        assert vega["config"]["axis"]["labelFlush"] is False
        for axis in axes(vega):
            assert not axis.get("labelFlush"), figure.name


def axes(vega: Any) -> list[dict[str, Any]]:
    own = vega.get("axes", [])
    return [*own, *(axis for mark in vega.get("marks", []) for axis in axes(mark))]


def test_letters_have_a_size_that_a_phone_shows(drawn: tuple[Figure, ...]) -> None:
    sizes = [value for part in config().values() if isinstance(part, dict) for value in fonts(part)]
    assert len(sizes) > 6 and min(sizes) >= 11
    for figure in drawn:
        assert min(fonts(figure.spec), default=11) >= 11, figure.name
        svg = rendered(figure, ["svg"])["svg"].decode()
        (width,) = re.findall(r'^<svg[^>]*? width="([\d.]+)"', svg)
        assert float(width) <= 384, figure.name  # a phone's card has 366: 10.5 px or more


def test_long_names_keep_their_end_and_leave_room() -> None:
    labels = [MINE.format(x) for x in ("kd", "mse")]
    whole = evidence([simple(label, seed) for label in labels for seed in (1, 2)])
    for figure in draw(whole).figures:
        for part in parts(figure.spec):
            assert "layer" not in part or part.get("width", WIDTH) > 60, figure.name
    for name in ("time-total", "accuracy-compute"):
        (figure,) = draw(whole, [name]).figures
        svg = rendered(figure, ["svg"])["svg"].decode()
        for label in labels:
            assert f"{label[-20:]}<" in svg, name


def fonts(value: Any) -> list[float]:
    if isinstance(value, dict):
        own = [size for key, size in value.items() if key.lower().endswith("fontsize")]
        return [*own, *(size for child in value.values() for size in fonts(child))]
    return [size for child in value for size in fonts(child)] if isinstance(value, list) else []


@pytest.mark.parametrize("groups", [2, 3, 4, 5, 6, 9])
def test_the_number_of_an_arrow_is_on_no_other(groups: int) -> None:
    place = ring([str(i) for i in range(groups)])
    lines = [(place[a], place[b]) for a, b in itertools.combinations(place, 2)]
    words = [("0.57", "10", "6.5", "0.086")[i % 4] for i in range(len(lines))]
    ats = texts(lines, words)
    assert groups > 5 or None not in ats
    rest = [(at, half(word), line) for at, word, line in zip(ats, words, lines, strict=True) if at]
    assert len(rest) >= min(groups - 1, 3)
    for at, wide, line in rest:
        assert apart(at, *line) < 1e-6  # on its own
        for other in lines:
            if other != line:
                assert not meets(at, wide, other)
        for beside, its, _ in rest:
            near = abs(at[0] - beside[0]) < wide + its and abs(at[1] - beside[1]) < 2 * TALL
            assert beside == at or not near


def apart(at: tuple[float, float], tail: tuple[float, float], head: tuple[float, float]) -> float:
    return math.dist(tail, at) + math.dist(at, head) - math.dist(tail, head)


def meets(at: tuple[float, float], wide: float, line: tuple[Any, Any]) -> bool:
    """Whether a line goes through the letters."""
    (x1, y1), (x2, y2) = line
    on = [(x1 + k / 500 * (x2 - x1), y1 + k / 500 * (y2 - y1)) for k in range(501)]
    return any(abs(x - at[0]) < wide - 1 and abs(y - at[1]) < TALL - 1 for x, y in on)


def test_the_baseline_of_one_exit_is_in_no_mean_over_exits() -> None:
    alone = HandTrial("baseline", 1, [Run("backbone", {3: [2.0, 1.0]})], exits=(3,))
    actual = evidence([alone, simple("joint", 1)])
    (figure,) = curves.overall(actual.runs[0])
    assert "baseline" not in text(figure.spec)
    assert "baseline lacks exits" in figure.caption
    (whole,) = curves.overall(evidence([simple("joint", 1)]).runs[0])
    assert "lacks" not in whole.caption
    assert curves.overall(evidence([alone]).runs[0])  # where it is all that there is


def test_lines_that_hide_each_other_are_named_in_the_chart(snapshot: SnapshotAssertion) -> None:
    backbone = Run("backbone", {3: [2.0, 1.0]}, key="shared")
    two = [
        HandTrial(x, 1, [backbone, Run(f"h{x}", {1: [1.0 + len(x)]})])
        for x in ("two-stage", "distillation")
    ]
    loss = curves.by_exit(evidence(two).runs[0])[0]
    wording = [part["title"] for part in parts(loss.spec) if isinstance(part.get("title"), dict)]
    assert [(title["text"], " ".join(title["subtitle"])) for title in wording] == snapshot


def test_marks_that_hide_each_other_are_named_in_the_caption(snapshot: SnapshotAssertion) -> None:
    whole = evidence([simple(label, seed) for label in ("joint", "two-stage") for seed in (1, 2)])
    (figure,) = compute.accuracy_compute(whole.runs[0])
    assert re.findall(r"[^.]* on one another[^.]*", figure.caption) == snapshot
    (other,) = compute.accuracy_compute(evidence([simple("joint", 1)]).runs[0])
    assert "on one another" not in other.caption


def parts(spec: Any) -> list[dict[str, Any]]:
    if isinstance(spec, dict):
        return [dict(spec), *(part for child in spec.values() for part in parts(child))]
    return [part for child in spec for part in parts(child)] if isinstance(spec, list) else []


def test_alike_is_what_is_drawn_alike() -> None:
    rows = [("a", 1.0), ("b", 1.00001), ("c", 1.1), ("a", 2.0), ("b", 2.0), ("c", 2.0)]
    assert coinciding(pd.DataFrame(rows, columns=["strategy", "value"])) == [["a", "b"]]
