from __future__ import annotations

import pytest

from offramp.report.colors import DARK, KNOWN, OTHERS, styles
from offramp.report.figures.chart import exit_color, short, ticks, unit
from offramp.strategies import STRATEGIES


def test_styles_differ_in_more_than_color() -> None:
    actual = list(styles([*KNOWN, "mine", "yours"]).values())
    assert len({s.color for s in actual}) == len({s.dark for s in actual}) == 11
    assert len({(s.dash, s.shape) for s in actual}) == 11
    assert len({s.shape for s in KNOWN.values()}) == len({s.dash for s in KNOWN.values()}) == 9


def test_no_two_of_the_strategies_that_come_with_offramp_look_alike() -> None:
    actual = list(styles(STRATEGIES).values())
    assert len({(s.color, s.dash) for s in actual}) == len({(s.color, s.shape) for s in actual})
    assert len({(s.color, s.dash) for s in actual}) == len(STRATEGIES)
    assert styles(["mixed", "mine"])["mixed"] == styles(STRATEGIES)["mixed"], "alone as among others"


@pytest.mark.parametrize("dark", [False, True])
def test_colors_stand_out_from_the_page(dark: bool) -> None:
    page = 0.0 if dark else 1.0
    for label, style in KNOWN.items():
        ink = luminance(style.dark if dark else style.color)
        low, high = sorted((ink, page))
        assert (high + 0.05) / (low + 0.05) >= 3, label


def test_exits_have_colors_of_their_own() -> None:
    """The ninth had that of the first, on the page too."""
    colors = exit_color(range(1, 25))["scale"]["range"]
    reference = [*KNOWN.values(), *OTHERS]
    assert len({*colors, *(s.color for s in reference)}) == 24 + len(reference)
    assert len({DARK[color] for color in colors}) == 24
    for first in range(0, 24, 4):
        inks = [luminance(color) for color in colors[first : first + 4]]
        assert inks == sorted(inks, reverse=True)  # the deeper the darker, within a hue
        inks = [luminance(DARK[color]) for color in colors[first : first + 4]]
        assert inks == sorted(inks)


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_numbers_are_short() -> None:
    assert [short(v) for v in (0.123456, 1234567.0, 1e-7, 30.0, 0.0)] == [
        *("0.1235", "1.235e6", "1e-7", "30", "0")
    ]


def test_ticks_of_a_logarithmic_axis() -> None:
    assert ticks(3.0, 200.0) == [5, 10, 20, 50, 100, 200]
    assert ticks(0.001, 1000.0) == [0.001, 0.01, 0.1, 1, 10, 100, 1000][:7]
    assert ticks(0.0, 1.0) == [] and ticks(1.0, 1.0) == []


def test_units_fit_the_largest_value() -> None:
    assert [unit(v, "s").name for v in (0.5, 90.0, 600.0, 9000.0)] == ["ms", "s", "min", "h"]
    assert unit(5e9, "MB").name == "GB" and unit(0.0, "J").name == "J"
