"""Progress of reading data, and moving lines for short work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.status import Status

from offramp.api.progress.log import CLEAR, Log, handler
from offramp.escape import printable
from offramp.terminal import console

SELDOM = 10.0  # seconds between lines that stay


@contextmanager
def reading_shown(log: Log | None = None, status: Status | None = None) -> Iterator[None]:
    """Show on standard error how far data is read, once that takes longer than a second.

    A terminal has a line that moves; elsewhere there is a line every ten seconds. Warnings stay.

    Args:
        log: Of a run, which has warnings by itself.
        status: A line that moves already, in place of a new one.
    """
    screen = Log(timed=False) if log is None else log
    logger = logging.getLogger("offramp.data")
    moves = screen.moves and screen.shown
    handlers: list[logging.Handler]
    if moves:
        handlers = [_moving(screen) if status is None else _Updating(status)]
    else:
        handlers = [handler(screen)]
        handlers[0].addFilter(_seldom())
    handlers[0].addFilter(_spelled)
    handlers[0].addFilter(lambda record: record.levelno < logging.WARNING)
    if log is None:
        handlers.append(handler(screen, must=True))
        handlers[-1].setLevel(logging.WARNING)
    level = logger.level
    for each in handlers:
        logger.addHandler(each)
    logger.setLevel(logging.INFO)
    screen.reading = moves and status is None
    try:
        yield
    finally:
        logger.setLevel(level)
        for each in handlers:
            logger.removeHandler(each)
        if screen.reading:
            screen.console.file.write(CLEAR)
            screen.console.file.flush()
        screen.reading = False


def _moving(log: Log) -> logging.Handler:
    """One line that moves."""
    line = logging.StreamHandler(log.console.file)
    line.setFormatter(logging.Formatter(f"{CLEAR}%(message)s"))
    line.terminator = ""
    return line


class _Updating(logging.Handler):
    """A line that moves already."""

    def __init__(self, status: Status) -> None:
        super().__init__()
        self._status = status

    def emit(self, record: logging.LogRecord) -> None:
        self._status.update(record.getMessage())


def _spelled(record: logging.LogRecord) -> bool:
    """Spells out what would steer the terminal, and lets the message pass."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


def _seldom() -> Callable[[logging.LogRecord], bool]:
    """Lets a message pass every SELDOM seconds, and none before."""
    began: float | None = None

    def passes(record: logging.LogRecord) -> bool:
        nonlocal began
        began = record.created if began is None else began
        if record.created - began < SELDOM:
            return False
        began = record.created
        return True

    return passes


@contextmanager
def moving(text: str, log: Log | None = None) -> Iterator[Status]:
    """A moving line on a terminal; nothing elsewhere.

    Args:
        text: What it says first.
        log: Whether progress is shown at all, and where.
    """
    screen = console(stderr=True) if log is None else log.console
    status = screen.status(text)
    if not screen.is_terminal or not (log is None or (log.shown and log.moves)):
        yield status
        return
    with status:
        yield status
