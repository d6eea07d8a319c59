"""Charts in two sets of colors at once: each color becomes CSS that names its light and its dark value.

A browser then chooses, for the screen and for print, and nothing is drawn anew when the choice changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offramp.report import theme


def config() -> dict[str, Any]:
    """The charts' common `config`, in both sets of colors and in the page's letters."""
    both: dict[str, Any] = _both(theme.config(), theme.config(dark=True))
    return {**both, "font": "Helvetica, Arial, 'Liberation Sans', sans-serif"}


def colored(spec: Any) -> Any:
    """A specification in which each color that has a dark value names both. Data are left alone."""
    if isinstance(spec, str):
        dark = theme.DARK.get(spec)
        return spec if dark is None else _pair(spec, dark)
    if isinstance(spec, Mapping):
        return {
            key: value if key in ("datasets", "values") else colored(value)
            for key, value in spec.items()
        }
    return [colored(value) for value in spec] if isinstance(spec, list | tuple) else spec


def _both(light: Any, dark: Any) -> Any:
    if isinstance(light, Mapping):
        return {key: _both(value, dark[key]) for key, value in light.items()}
    return light if light == dark else _pair(light, dark)


def _pair(light: str, dark: str) -> str:
    return f"light-dark({light}, {dark})"
