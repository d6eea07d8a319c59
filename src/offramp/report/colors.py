"""One color, dash and shape for each strategy, the same in every figure.

The colors were searched for: the smallest difference between any two, as seen with and without each
kind of color blindness (Machado, Oliveira and Fernandes, 2009), is as large as it gets at a contrast of
at least 3 to 1 with the page and a chroma that does not shout. Dashes and shapes tell them apart in
print without color.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from offramp.strategies import STRATEGIES


@dataclass(frozen=True)
class Style:
    """How a strategy looks."""

    color: str  # on white
    dark: str  # the same on a dark page
    dash: tuple[int, ...]  # lengths of strokes and gaps in pixels, empty for a full line
    shape: str  # a symbol of Vega-Lite


STAR = (
    "M0,-1L0.22,-0.31L0.95,-0.31L0.36,0.12L0.59,0.81L0,0.38"
    "L-0.59,0.81L-0.36,0.12L-0.95,-0.31L-0.22,-0.31Z"
)
KNOWN = {
    "baseline": Style("#111111", "#e8e8e8", (1, 2), "circle"),
    "joint": Style("#00308e", "#abbaff", (), "square"),
    "separate": Style("#6b6156", "#9e6100", (9, 3), "triangle-up"),
    "branch-wise": Style("#48a45c", "#80e99f", (5, 2), "diamond"),
    "two-stage": Style("#b28e15", "#ffc85f", (7, 2, 1, 2), "triangle-down"),
    "distillation": Style("#89000e", "#ea655d", (3, 1), "cross"),
    "joint-branch": Style("#8a88e2", "#2b6ccf", (2, 2), "triangle-right"),
    "joint-two-stage": Style("#6c004f", "#e078b3", (4, 2, 1, 2), "triangle-left"),
    "pretrained-branch": Style("#e863a3", "#81656f", (7, 2, 1, 2, 1, 2), STAR),
}
OTHERS = (  # for all other labels, in turn
    Style("#1f7f95", "#4fc3dc", (12, 3), "circle"),
    Style("#a3541f", "#e59a68", (3, 3), "square"),
    Style("#4d6b1f", "#b5cf6b", (7, 2), "diamond"),
    Style("#6a3fa0", "#b79be0", (5, 3, 1, 3), "triangle-up"),
    Style("#b0305f", "#f08fb0", (1, 2), "triangle-down"),
    Style("#3f5f6f", "#8fb2c4", (9, 4), "cross"),
)
# By exit: from light to dark, so that depth reads as ink, and the reverse on a dark page.
# Four of a hue, and hues enough for every block of a deep network.
EXIT_COLORS = (
    *("#9ec5e8", "#5a94cc", "#2c649f", "#123661", "#7fa39a", "#4f7a70", "#2a5048", "#11302a"),
    *("#c3b1e1", "#9a7fc7", "#6d4f9e", "#3c2563", "#e0b48c", "#b98350", "#855728", "#4a2d10"),
    *("#e5a9bd", "#c2708d", "#8d4160", "#501e34", "#c2c48f", "#93965a", "#626531", "#343714"),
)
EXIT_DARK = (
    *("#2f5d8c", "#4f86bd", "#86b3e0", "#cfe4f8", "#2e5a50", "#4f8073", "#82b0a4", "#c5e3db"),
    *("#54398a", "#8567b8", "#b39bdd", "#e2d8f5", "#7a4f22", "#a87440", "#d3a06b", "#f3dcc4"),
    *("#853a58", "#b3607f", "#db95ad", "#f7d9e3", "#585b2a", "#84874e", "#b1b47c", "#e2e4c3"),
)


def rank(label: str) -> tuple[int, str]:
    """Sorts labels: the paper's strategies in its order, then any other by name."""
    names = list(STRATEGIES)
    return (names.index(label), "") if label in names else (len(names), label)


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """The style of each label, in order of `rank`. What comes with offramp always has the same one."""
    ordered = sorted(set(labels), key=rank)
    others = [label for label in STRATEGIES if label not in KNOWN]
    others += [label for label in ordered if label not in STRATEGIES]
    return {label: KNOWN.get(label) or _other(others.index(label)) for label in ordered}


def _other(number: int) -> Style:
    """Where colors come again, they do with another dash and another shape."""
    turn, place = divmod(number, len(OTHERS))
    lines = OTHERS[(place + turn) % len(OTHERS)]
    return replace(OTHERS[place], dash=lines.dash, shape=lines.shape)


FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
# What stands in specifications, drawn for white paper, and what it becomes on a dark page.
DARK: dict[str, str] = {
    **{style.color: style.dark for style in (*KNOWN.values(), *OTHERS)},
    **dict(zip(EXIT_COLORS, EXIT_DARK, strict=True)),
}


def config(dark: bool = False) -> dict[str, Any]:
    """Vega-Lite's `config`. Texts have 11 or 12 px at the width of a phone, and stand at their ticks."""
    ink, soft, line = ("#e6e6e6", "#b5b5b5", "#3a3a3a") if dark else ("#1a1a1a", "#595959", "#dedede")
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            **{"labelColor": soft, "titleColor": ink, "domainColor": soft, "tickColor": soft},
            **{"gridColor": line, "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"},
            **{
                "labelFlush": False,
                "labelOverlap": True,
                "labelSeparation": 4,
                "labelFontWeight": "normal",
            },
            **{"tickSize": 4, "labelLimit": 160, "gridWidth": 0.6},
        },
        "legend": {
            **{"labelColor": ink, "titleColor": ink, "labelFontSize": 11, "titleFontSize": 11},
            **{"titleFontWeight": "normal", "orient": "top", "symbolStrokeWidth": 2, "labelLimit": 200},
            **{"columnPadding": 10, "rowPadding": 2, "offset": 6},
            "symbolLimit": 0,  # none: by itself it names 30, and counts the others as one more
        },
        "header": {"labelColor": ink, "titleColor": ink, "labelFontSize": 11, "titleFontSize": 11},
        "title": {
            **{"color": ink, "subtitleColor": soft, "fontSize": 12, "fontWeight": "bold"},
            **{"anchor": "start", "offset": 4, "frame": "group", "subtitleFontSize": 11},
        },
        "text": {"color": ink, "fontSize": 11},
        "rule": {"color": soft},
        "concat": {"spacing": 12},
    }


def themed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A figure's specification with the theme in it."""
    return {**spec, "config": config()}


def both_configs() -> dict[str, Any]:
    """The charts' common `config`, in both sets of colors and in the page's letters."""
    both: dict[str, Any] = _both(config(), config(dark=True))
    return both


def both_colors(spec: Any) -> Any:
    """A specification in which each color that has a dark value names both. Data are left alone."""
    if isinstance(spec, str):
        dark = DARK.get(spec)
        return spec if dark is None else _pair(spec, dark)
    if isinstance(spec, Mapping):
        return {
            key: value if key in ("datasets", "values") else both_colors(value)
            for key, value in spec.items()
        }
    return [both_colors(value) for value in spec] if isinstance(spec, list | tuple) else spec


def _both(light: Any, dark: Any) -> Any:
    if isinstance(light, Mapping):
        return {key: _both(value, dark[key]) for key, value in light.items()}
    return light if light == dark else _pair(light, dark)


def _pair(light: str, dark: str) -> str:
    return f"light-dark({light}, {dark})"
