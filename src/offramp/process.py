"""Settings of a process that computes: freed memory, garbage collection, and its end; and which revision
of the code it runs.

No result depends on any of it, and what the user set in the environment stays.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from offramp.errors import OfframpError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
USUAL = 2**17  # bytes, glibc's own of both
LARGEST, NEVER = 2**30, 2**31 - 1  # bytes: all up to 1 GiB comes from the heap, which is never trimmed
# Objects made since the last look for garbage, instead of 700: imports make hundreds of thousands that
# stay, and looking through them again and again took a sixth of a command's start.
OBJECTS = 10_000
GC_VARIABLE = "OFFRAMP_GC_THRESHOLD"  # another number of them, in the environment
GC_MOST = 2**31 - 1  # that Python takes
PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>
# Ctrl-C, schedulers, a terminal that is closed; not every system has the last.
ENDING: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def prepare() -> None:
    """What a command sets for its process, before it imports torch."""
    look_less_for_garbage()
    keep_freed_memory()


@contextmanager
def prepared() -> Iterator[None]:
    """What a command sets, for work that Python calls. Freed memory is kept from then on."""
    before = gc.get_threshold()
    prepare()
    try:
        yield
    finally:
        gc.set_threshold(*before)


def look_less_for_garbage() -> None:
    """Collect garbage less often (see OBJECTS), unless the program does so already.

    Raises:
        OfframpError: The environment gives what is no such number.
    """
    number = os.environ.get(GC_VARIABLE, str(OBJECTS))
    if not number.isdecimal() or int(number) > GC_MOST:
        raise OfframpError(
            f"{GC_VARIABLE} is '{number}'; give a number of objects (Python's own is 700)"
        )
    if GC_VARIABLE in os.environ or 0 < gc.get_threshold()[0] < int(number):
        gc.set_threshold(int(number))


def keep_freed_memory(keep: bool = True) -> bool:
    """Have glibc keep what is freed instead of giving it back to the kernel, or give it back again.

    By default buffers of some megabytes are mapped anew for each use, and the kernel clears every page
    of them again: hundreds of thousands of page faults in one training step of a MobileNet. The process
    then holds on to its largest size. No result depends on it.

    Returns:
        Whether that was done: not where the user set `MALLOC_…` variables, nor with another C library.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    mapped, trimmed = (LARGEST, NEVER) if keep else (USUAL, USUAL)
    return bool(mallopt(M_MMAP_THRESHOLD, mapped)) and bool(mallopt(M_TRIM_THRESHOLD, trimmed))


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which end work as Ctrl-C does. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


def exit_code(error: KeyboardInterrupt) -> int:
    """The exit status of a process that this ended: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)


def ended_by(code: int | None) -> str:
    """How a process ended, by its exit status as Python has it, in words.

    Example:
        >>> ended_by(-9), ended_by(1)
        ('SIGKILL', 'exit code 1')
    """
    if code is None or code >= 0:
        return f"exit code {code}"
    names = {int(number): number.name for number in signal.Signals}
    return names.get(-code, f"signal {-code}")


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Terminated, once, in nested blocks too. What the user has set to be
    ignored (`nohup`) stays so. Outside of the main thread, where Python sees no signals, nothing
    changes."""
    before = {}
    for number in ENDING[1:] if _in_main_thread() else ():
        if signal.getsignal(number) not in (signal.SIG_IGN, _terminate):
            before[number] = signal.signal(number, _terminate)
    try:
        yield
    finally:
        _put_back(before)


def _terminate(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # schedulers repeat themselves; what is being saved goes on
    raise Terminated(number)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP that come meanwhile count at the end of the block."""
    pending: list[int] = []
    before = {}
    for number in ENDING if _in_main_thread() else ():
        before[number] = signal.signal(number, lambda number, _: pending.append(number))
    try:
        yield
    finally:
        _put_back(before)
        for late in dict.fromkeys(pending):
            signal.raise_signal(late)


def _put_back(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items() if _in_main_thread() else ():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def end_with_parent(number: int) -> None:
    """Have the kernel send this process the signal `number` when its parent is gone, however that
    ended; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def watch_parent(number: int) -> None:
    """Send this process of `multiprocessing` the signal `number` when its parent is gone, on every
    system: a thread waits for the end of a pipe that the parent holds."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    end_with_parent(number)

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), number)

    threading.Thread(target=wait, daemon=True).start()


def leave_signals_to_parent() -> None:
    """Of a helper: ignore what a terminal or a scheduler sends to all processes. Its parent ends it."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def revision(folder: Path) -> str | None:
    """The commit that git says of a folder; None where there is no git, or no repository."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
