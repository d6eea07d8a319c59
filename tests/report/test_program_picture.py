"""The picture of a strategy shows what its phases say."""

import re
from xml.etree import ElementTree

import pytest
from syrupy.assertion import SnapshotAssertion

from offramp.parts import path
from offramp.report.render.program import picture
from offramp.strategies import STRATEGIES
from wording import refusal

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("exits", [1, 2, 4])
def test_each_part_is_drawn_as_its_phase_has_it(name: str, exits: int) -> None:
    program = STRATEGIES[name](exits)
    drawn = ElementTree.fromstring(picture(program, exits, name))
    rows = {row.get("data-phase"): row for row in drawn.iter(f"{SVG}g") if row.get("data-phase")}
    assert list(rows) == [phase.name for phase in program]
    for phase in program:
        boxes = rows[phase.name].iter(f"{SVG}rect")
        states = {box.get("data-part"): box.get("data-state") for box in boxes}
        assert len(states) == 2 * exits
        trained = {str(part) for part in phase.trained}
        read = {str(part) for k in phase.exits for part in path(k)}
        assert {part for part, state in states.items() if state == "trains"} == trained
        assert {part for part, state in states.items() if state == "frozen"} == read - trained


def test_texts_and_boxes_lie_inside() -> None:
    for name, strategy in STRATEGIES.items():
        drawn = ElementTree.fromstring(picture(strategy(4), 4, name))
        width, height = (float(drawn.get(side) or 0) for side in ("width", "height"))
        assert width <= 350  # a phone's: scaled down, its words could not be read
        for box in drawn.iter(f"{SVG}rect"):
            if box.get("x") is not None:
                right = float(box.get("x") or 0) + float(box.get("width") or 0)
                assert 0 < right <= width and float(box.get("y") or 0) + 12 <= height
        for text in drawn.iter(f"{SVG}text"):
            assert 0 < float(text.get("y") or 0) <= height
            if text.get("text-anchor") is None:
                assert float(text.get("x") or 0) + 5.5 * len(text.text or "") <= width


def test_what_a_reader_cannot_see_is_said(snapshot: SnapshotAssertion) -> None:
    drawn = picture(STRATEGIES["two-stage"](3), 3, "a <b> & c")
    assert "<title>a &lt;b&gt; &amp; c</title>" in drawn
    assert re.search(r"<desc>backbone trains head 3 and segment 1 and .*; exit 1 trains head 1;", drawn)
    assert refusal(picture, STRATEGIES["joint"](4), 3, "joint") == snapshot
