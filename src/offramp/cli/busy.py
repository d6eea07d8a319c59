"""What a command is busy with before it can show anything of its own."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SELDOM = 10.0  # seconds between lines that stay

CLEAR = "\r\x1b[2K"


@contextmanager
def reading_shown(shown: bool = True) -> Iterator[None]:
    """While data is read: how far that is, on standard error, once it takes longer than a second; one
    line that moves on a terminal, elsewhere a line every ten seconds. Warnings stay, wherever."""
    if not shown:
        yield
        return
    log = logging.getLogger("offramp.data")
    handler, warnings = logging.StreamHandler(sys.stderr), logging.StreamHandler(sys.stderr)
    handler.addFilter(lambda record: record.levelno < logging.WARNING)
    warnings.setLevel(logging.WARNING)
    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if terminal:
        handler.setFormatter(logging.Formatter(f"{CLEAR}%(message)s"))
        handler.terminator = ""
        warnings.setFormatter(handler.formatter)
    else:
        handler.addFilter(_seldom())
    level = log.level
    log.addHandler(handler)
    log.addHandler(warnings)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        log.removeHandler(warnings)
        if terminal:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()


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
