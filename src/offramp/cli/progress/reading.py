"""Progress of reading data, and moving lines for short work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.status import Status

from offramp.cli.progress.log import CLEAR, Log, handler
from offramp.escape import printable
from offramp.terminal import console

SELDOM = 10.0  # seconds between lines that stay


@contextmanager
def reading_shown(log: Log | None = None, status: Status | None = None) -> Iterator[None]:
    """Show how far data is read, on standard error, once that takes longer than a second: a moving line
    on a terminal, elsewhere a line every ten seconds. Warnings stay. log: of a run, which hears warnings
    by itself.  status: a line that moves already, if any does, which takes the place of this one."""
    said = Log(timed=False) if log is None else log
    logger = logging.getLogger("offramp.data")
    moves = said.moves and said.shown
    handlers: list[logging.Handler]
    if moves:
        handlers = [_moving(said) if status is None else _Updating(status)]
    else:
        handlers = [handler(said)]
        handlers[0].addFilter(_seldom())
    handlers[0].addFilter(_spelled)
    handlers[0].addFilter(lambda record: record.levelno < logging.WARNING)
    if log is None:
        handlers.append(handler(said, must=True))
        handlers[-1].setLevel(logging.WARNING)
    level = logger.level
    for each in handlers:
        logger.addHandler(each)
    logger.setLevel(logging.INFO)
    said.reading = moves and status is None
    try:
        yield
    finally:
        logger.setLevel(level)
        for each in handlers:
            logger.removeHandler(each)
        if said.reading:
            said.console.file.write(CLEAR)
            said.console.file.flush()
        said.reading = False


def _moving(log: Log) -> logging.Handler:
    """One line that moves."""
    made = logging.StreamHandler(log.console.file)
    made.setFormatter(logging.Formatter(f"{CLEAR}%(message)s"))
    made.terminator = ""
    return made


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
    """A moving line on a terminal; nothing elsewhere. log: what is said meanwhile, and whether progress
    is shown at all."""
    screen = console(stderr=True) if log is None else log.console
    status = screen.status(text)
    if not screen.is_terminal or not (log is None or (log.shown and log.moves)):
        yield status
        return
    with status:
        yield status
