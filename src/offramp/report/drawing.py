"""Charts as files: SVG, PDF and PNG from Vega-Lite, without a browser, in several processes."""

from __future__ import annotations

import json
import math
import multiprocessing
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offramp.report.model import Figure
from offramp.report.theme import themed

FORMATS = ("svg", "pdf", "png")
VEGA_LITE = "6.4"  # what altair writes
SCALE = 2.0  # pixels of a PNG for each of the chart's own


def text(spec: Mapping[str, Any]) -> str:
    """A specification as JSON on one line; what is not a number becomes null, as JSON has none."""
    try:
        return json.dumps(spec, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_finite(spec), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def draw(name: str, spec: str, folder: Path, formats: Sequence[str]) -> None:
    """Write `name` in each format. The chart is laid out once: PDF and PNG are made from its SVG."""
    import vl_convert

    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
    for format in formats:
        path = folder / f"{name}.{format}"
        if format == "svg":
            path.write_text(svg, encoding="utf-8")
        elif format == "pdf":
            path.write_bytes(vl_convert.svg_to_pdf(svg))
        else:
            path.write_bytes(vl_convert.svg_to_png(_on_white(svg), scale=SCALE))


def _on_white(svg: str) -> str:
    """A PNG has white paper; SVG and PDF take that of the page where they stand."""
    return re.sub(r"<svg[^>]*>", r'\g<0><rect width="100%" height="100%" fill="white"/>', svg, count=1)


@contextmanager
def started(
    figures: Sequence[Figure], folder: Path, formats: Sequence[str], workers: int
) -> Iterator[list[Future[None]]]:
    """Begin to draw in `workers` processes; see `progress` for the end. No formats: nothing is drawn.

    At the end of the block, on a failure and on Ctrl-C too, what has not begun is dropped.
    """
    if not formats:
        yield []
        return
    context = multiprocessing.get_context("spawn")  # V8 has threads, which a fork would lose
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet)
    try:
        yield [
            executor.submit(draw, figure.name, text(themed(figure.spec)), folder, tuple(formats))
            for figure in figures
        ]
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def progress(drawn: Sequence[Future[None]]) -> Iterator[tuple[int, int]]:
    """Figures that are done, and in total, each time that one is. Raises what drawing raised."""
    for done, future in enumerate(as_completed(drawn), start=1):
        future.result()
        yield done, len(drawn)


def _quiet() -> None:
    """Ctrl-C is the parent's to handle; a worker that prints a traceback for it helps nobody."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
