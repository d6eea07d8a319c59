"""A figure as files: SVG, PDF and PNG without a browser, and the specification itself; many of them in
several processes."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offramp.errors import OfframpError
from offramp.escape import printable_json
from offramp.files import write_whole
from offramp.hashing import finite
from offramp.report.colors import themed
from offramp.report.model import Figure

PICTURES = ("svg", "pdf", "png")
FORMATS = (*PICTURES, "json")
VEGA_LITE = "6.4"  # of figures.chart.SCHEMA
ROOM = (("RLIMIT_NOFILE", 64, 1, "-n"), ("RLIMIT_AS", 75 * 2**30, 1024, "-v"))
SCALE = 2.0  # pixels of a PNG for each of the chart's


def text(spec: Mapping[str, Any]) -> str:
    """A specification as JSON on one line, the same text for equal ones; what is not a number becomes
    null, as JSON has none, and its texts are printable."""
    try:
        return _json(printable_json(spec))
    except ValueError:
        return _json(finite(printable_json(spec)))


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def rendered(figure: Figure, formats: Iterable[str]) -> dict[str, bytes]:
    """The bytes of a figure's files, by format."""
    return drawn(text(themed(figure.spec)), formats)


def drawn(spec: str, formats: Iterable[str]) -> dict[str, bytes]:
    """A specification's files.

    The same figure gives the same bytes on one machine (its fonts decide where letters end), but for
    PDF, whose writer numbers its fonts in no fixed order. The chart is laid out once, as SVG. spec:
    Vega-Lite, as JSON.

    Returns:
        By format: pictures on white, since a dark page would swallow their ink; PDF without a ground,
        for paper and slides.
    """
    check_room()
    import vl_convert  # a tenth of a second to load, which only drawing needs

    svg = str(vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE))
    end = svg.index(">") + 1
    paper = f'{svg[:end]}<rect width="100%" height="100%" fill="white"/>{svg[end:]}'
    files: dict[str, bytes] = {}
    for format in formats:
        if format == "json":
            files[format] = (spec + "\n").encode()
        elif format == "png":
            files[format] = bytes(vl_convert.svg_to_png(paper, scale=SCALE))
        elif format == "pdf":
            files[format] = bytes(vl_convert.svg_to_pdf(svg))
        else:
            files[format] = paper.encode()
    return files


def check_room() -> None:
    """Raise OfframpError where vl-convert, a browser's engine, would end the process: it reserves
    address space and opens files without a word on what is not to be had."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for limit, least, unit, name in ROOM:
        allowed, _ = resource.getrlimit(getattr(resource, limit))
        if allowed != resource.RLIM_INFINITY and allowed < least:
            raise OfframpError(
                f"drawing charts needs `ulimit {name}` of {least // unit:,} or more, and it is "
                f"{allowed // unit:,}; raise it, or set it to unlimited"
            )


def save(figure: Figure, folder: Path, formats: Iterable[str]) -> list[Path]:
    """Write a figure into `folder` in each format; the paths. Raises OfframpError where it cannot."""
    paths = []
    for format, data in rendered(figure, formats).items():
        path = folder / f"{figure.name}.{format}"
        write_whole(path, data)
        paths.append(path)
    return paths


def draw(name: str, spec: str, folder: Path, formats: Sequence[str]) -> None:
    """Write `name` in each format."""
    for format, content in drawn(spec, formats).items():
        (folder / f"{name}.{format}").write_bytes(content)


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


def progress(begun: Sequence[Future[None]]) -> Iterator[tuple[int, int]]:
    """Figures that are done, and in total, each time that one is. Raises what drawing raised."""
    for done, future in enumerate(as_completed(begun), start=1):
        future.result()
        yield done, len(begun)


def _quiet() -> None:
    """Ctrl-C is the parent's to handle; a worker that prints a traceback for it helps nobody."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
