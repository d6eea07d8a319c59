"""A figure as files: SVG, PDF and PNG without a browser, and the specification itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import vl_convert

from offramp.errors import OfframpError, nearest
from offramp.files import replacing
from offramp.report.model import Figure
from offramp.report.theme import themed
from offramp.study.sealed import writing

FORMATS = ("svg", "pdf", "png", "json")
VEGA_LITE = "6.4"  # what altair writes
SCALE = 2.0  # pixels of a PNG for each of the chart's


def checked(formats: Iterable[str]) -> tuple[str, ...]:
    """Formats, each once. Raises OfframpError for one that is none."""
    found = tuple(dict.fromkeys(word.strip().lower() for word in formats if word.strip()))
    for word in found:
        if word not in FORMATS:
            raise OfframpError(f"there is no format '{word}'{nearest(word, FORMATS)}")
    if not found:
        raise OfframpError(f"no format is named; choose among {', '.join(FORMATS)}")
    return found


def text(spec: Mapping[str, Any]) -> str:
    """A specification as JSON, the same text for equal ones."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def rendered(figure: Figure, format: str) -> bytes:
    """The bytes of a figure's file on white paper; `json` has the theme too. The same figure gives the
    same bytes on one machine (its fonts decide where letters end)."""
    spec = themed(figure.spec)
    if format == "json":
        return (text(spec) + "\n").encode()
    if format == "png":
        spec["config"]["background"] = "white"
        return bytes(vl_convert.vegalite_to_png(text(spec), vl_version=VEGA_LITE, scale=SCALE))
    if format == "pdf":
        return bytes(vl_convert.vegalite_to_pdf(text(spec), vl_version=VEGA_LITE))
    return str(vl_convert.vegalite_to_svg(text(spec), vl_version=VEGA_LITE)).encode()


def save(figure: Figure, folder: Path, formats: Iterable[str]) -> list[Path]:
    """Write a figure into `folder` in each format; the paths. Raises OfframpError where it cannot."""
    paths = []
    for format in formats:
        path = folder / f"{figure.name}.{format}"
        with writing(path), replacing(path) as temporary:
            temporary.write_bytes(rendered(figure, format))
        paths.append(path)
    return paths
