"""Many charts as files, drawn in several processes."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from offramp.report.model import Figure
from offramp.report.save import drawn, text
from offramp.report.theme import themed


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
