"""How charts look: the same sizes everywhere, ink by theme, no background of their own.

On a page they have two sets of colors at once: each color becomes CSS that names its light and its dark
value. A browser then chooses, for the screen and for print, and nothing is drawn anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offramp.report.colors import KNOWN, OTHERS
from offramp.report.figures.chart import EXIT_COLORS, EXIT_DARK

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
