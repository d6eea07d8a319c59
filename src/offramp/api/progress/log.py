"""The log of work: lines on standard error and in a file, for people or for programs; and lines that
move on a terminal, of short work and of data that are read."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, final

from rich.status import Status

from offramp.errors import OfframpError
from offramp.escape import preformatted, printable
from offramp.files import writing
from offramp.hashing import finite
from offramp.terminal import console, paragraph

CLEAR = "\r\x1b[2K"
FRAME_S = 0.25  # between two changes of what moves in a notebook
SELDOM = 10.0  # seconds between lines that stay


class Format(StrEnum):
    text = "text"
    json = "json"


@dataclass(frozen=True)
class Line:
    """A line of a log.

    Attributes:
        text: For people.
        event: For programs: what kind of thing happened.
        fields: For programs: the facts of it.
        must: Whether it is written where no progress is shown, too.
        brief: In place of `text` on a terminal, where the rest of it moves; empty for nothing.
    """

    text: str
    event: str = "note"
    fields: Mapping[str, Any] = field(default_factory=dict)
    must: bool = False
    brief: str | None = None

    def as_text(self, now: datetime) -> str:
        """`2026-11-27 12:24:03  what happened`, in the machine's own time."""
        return f"{now:%Y-%m-%d %H:%M:%S}  {printable(self.text)}"

    def as_json(self, now: datetime) -> str:
        """One object: `time` (ISO 8601, with its zone), `event`, and its fields, else `text`."""
        fields = self.fields or {"text": self.text}
        record = {"time": now.isoformat(timespec="milliseconds"), "event": self.event, **fields}
        return json.dumps(finite(record), allow_nan=False)


@dataclass(frozen=True)
class LogOptions:
    """What a command tells while it works.

    Attributes:
        log_file: Where lines go too.
        log_format: None: as standard error shows it best.
        verbose: A line for every epoch.
        quiet: No progress on standard error.
    """

    log_file: Path | None = None
    log_format: Format | None = None
    verbose: bool = False
    quiet: bool = False


@final
class Log:
    """Where lines go: standard error, and a file.

    Standard error is a log, a line with its time each, where it is not a terminal or the format is JSON;
    a terminal has lines without, folded at spaces.

    Attributes:
        console: Standard error.
        shown: Whether progress is shown there.
        verbose: Whether every epoch is a line.
        format: Of lines in a log.
        moves: Whether lines on the terminal may move.
        reading: Whether a line moves now, which `say` must clear.
        frame: Where the moving lines go in a notebook.
        logger: Of `logging`, which takes every line in place of standard error.
    """

    def __init__(
        self,
        progress: bool = True,
        format: Format = Format.text,
        verbose: bool = False,
        file: IO[str] | None = None,
        timed: bool = True,
        frame: Callable[[Sequence[str]], None] | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self.console = console(stderr=True)
        self.shown, self.verbose, self.format = progress, verbose, format
        self.moves = (
            format is Format.text and self.console.is_terminal and not self.console.is_dumb_terminal
        )
        self.reading = False
        self._file, self._timed = file, timed
        self.frame, self.logger = frame, logger

    @property
    def logs(self) -> bool:
        """Whether anything is written as a log, epochs too."""
        if self.logger is not None:
            return self.logger.isEnabledFor(logging.INFO)
        return self._file is not None or (self.shown and not self.moves)

    def say(self, text: str, must: bool = False) -> None:
        """Tell people something."""
        self.write(Line(text, must=must))

    def write(self, line: Line) -> None:
        if self.logger is not None:
            self.logger.info("%s", printable(line.text))
            return
        now = datetime.now().astimezone()
        if (self.shown or line.must) and not (self.moves and line.brief == ""):
            self._to_screen(line, now)
        self._to_file(line, now)

    def end(self, reason: str) -> None:
        """What ends the command, which standard error says in its own way."""
        self._to_file(Line(reason, "error"), datetime.now().astimezone())

    def lost(self, error: Exception) -> None:
        """The file cannot be written, which is said once."""
        if self._file is not None:
            self._file = None
            self.say(f"the log file cannot be written any more ({error}); work goes on", must=True)

    def _to_file(self, line: Line, now: datetime) -> None:
        """A full disk does not end the training."""
        if self._file is None:
            return
        try:
            self._file.write(f"{self._worded(line, now)}\n")
            self._file.flush()
        except (OSError, ValueError) as error:
            self.lost(error)

    def _to_screen(self, line: Line, now: datetime) -> None:
        if self.moves:
            before = CLEAR if self.reading else ""
            words = printable(line.text if line.brief is None else line.brief)
            text = before + "\n".join(paragraph(words, self.console.width))
        elif self._timed or self.format is Format.json:
            text = self._worded(line, now)
        else:
            text = printable(line.text)
        if self.moves and not self.reading:  # what moves below must know of it
            self.console.print(text, soft_wrap=True)
        else:
            self.console.file.write(f"{text}\n")
            self.console.file.flush()

    def _worded(self, line: Line, now: datetime) -> str:
        return line.as_json(now) if self.format is Format.json else line.as_text(now)


@final
class Warnings(logging.Handler):
    """Passes what a logger warns of to a log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.say(self.format(record).strip(), must=True)
        except OSError:  # a terminal that is gone ends no training
            self.handleError(record)


@final
class Frame:
    """Lines that change in the output of a notebook's cell. display: of IPython."""

    def __init__(self, display: Callable[..., Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._display, self._clock = display, clock
        self._handle: Any = None
        self._latest = -FRAME_S
        self._shown: Sequence[str] = ()

    def __call__(self, lines: Sequence[str]) -> None:
        """Show these lines, the last of all in any case."""
        whole = " 100 % " in lines[0]
        if lines == self._shown or (self._clock() - self._latest < FRAME_S and not whole):
            return
        self._latest, self._shown = self._clock(), lines
        text = "\n".join(lines)
        bundle = {"text/plain": text, "text/html": preformatted(text)}
        if self._handle is None:
            self._handle = self._display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


def log_here() -> Log:
    """The log that suits where Python runs."""
    if _in_notebook():
        from IPython.display import display

        return Log(progress=False, frame=Frame(display))
    log = Log()
    return log if log.moves else Log(progress=False, logger=logging.getLogger("offramp"))


@contextmanager
def opened(options: LogOptions, as_json: bool = False) -> Iterator[Log]:
    """A log, open while the block runs.

    Warnings meanwhile are lines of it, and so is, in the file, what ends the command. as_json: whether
    the command answers programs, which read of progress only where the options say so.

    Raises:
        OfframpError: The file cannot be written.
    """
    explicit = options.log_format is not None or options.verbose
    progress = not options.quiet and (explicit or not as_json)
    file = None if options.log_file is None else _appended(options.log_file)
    log = Log(progress, options.log_format or Format.text, options.verbose, file)
    warnings = Warnings(log)
    logger = logging.getLogger("offramp")
    logger.addHandler(warnings)
    try:
        yield log
    except OfframpError as error:
        log.end(str(error))
        raise
    finally:
        logger.removeHandler(warnings)
        if file is not None:
            try:
                file.close()
            except OSError as error:  # it writes once more what could not be written
                log.lost(error)


def _appended(path: Path) -> IO[str]:
    with writing(path):
        return open(path, "a", encoding="utf-8", errors="backslashreplace", opener=_without_waiting)


def _without_waiting(path: str, flags: int) -> int:
    """A pipe that nobody reads is refused; opening it as usual would wait for a reader."""
    handle = os.open(path, flags | os.O_NONBLOCK, 0o666)
    os.set_blocking(handle, True)
    return handle


@contextmanager
def reading_shown(log: Log | None = None, status: Status | None = None) -> Iterator[None]:
    """Show on standard error how far data is read, once that takes longer than a second: by a line that
    moves on a terminal (that of `status`, where there is one), elsewhere every ten seconds. Warnings
    stay, unless a run's log has them."""
    screen = Log(timed=False) if log is None else log
    logger = logging.getLogger("offramp.data")
    handlers: list[logging.Handler] = [_Reading(screen, status)]
    handlers += [Warnings(screen)] if log is None else []
    level = logger.level
    for each in handlers:
        logger.addHandler(each)
    logger.setLevel(logging.INFO)
    screen.reading = screen.moves and screen.shown and status is None
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


@final
class _Reading(logging.Handler):
    """How far data is read: in a line that moves, `status` where there is one, else in lines of the log
    now and then."""

    def __init__(self, log: Log, status: Status | None) -> None:
        super().__init__()
        self._log, self._status, self._due = log, status, _seldom()
        self.addFilter(lambda record: record.levelno < logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        text, screen = printable(record.getMessage()), self._log.console.file
        try:
            if not (self._log.moves and self._log.shown):
                if self._due(record.created):
                    self._log.say(text)
            elif self._status is not None:
                self._status.update(text)
            else:
                screen.write(f"{CLEAR}{text}")
                screen.flush()
        except OSError:
            self.handleError(record)


def _seldom() -> Callable[[float], bool]:
    """Whether a line is due at a time: SELDOM seconds after the first call, and after each line."""
    latest: float | None = None

    def due(now: float) -> bool:
        nonlocal latest
        latest = now if latest is None else latest
        if now - latest < SELDOM:
            return False
        latest = now
        return True

    return due


def seldom_said(log: Log) -> Callable[[str], None]:
    """Takes each step of a job: a line in a log now and then."""
    due = _seldom()

    def step(text: str) -> None:
        if due(time.monotonic()):
            log.say(text)

    return step


@contextmanager
def moving(text: str, log: Log | None = None) -> Iterator[Status]:
    """A moving line on a terminal; nothing elsewhere (`seldom_said` is for there). log: whether progress
    is shown at all, and where."""
    screen = console(stderr=True) if log is None else log.console
    status = screen.status(text)
    if not screen.is_terminal or not (log is None or (log.shown and log.moves)):
        yield status
        return
    with status:
        yield status
