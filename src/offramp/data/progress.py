"""Threads for long work on images, and its progress as log messages (loggers below `offramp.data`)."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

log = logging.getLogger(__name__)

PERIOD = 1.0  # seconds from one message to the next

T = TypeVar("T")


def pool(count: int) -> ThreadPoolExecutor:
    """Threads for so many images or files: at most one a core, and at most 16."""
    return ThreadPoolExecutor(max(1, min(count, os.cpu_count() or 1, 16)))


class LoggedProgress:
    """Counts what is done of `total`, and logs it at most once a second (level INFO), such as
    `hashing files: 1,200 of 50,000`."""

    def __init__(self, work: str, total: int) -> None:
        self._work = work
        self._total = total
        self._done = 0
        self._logged = time.monotonic()

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; each counts as done when the next is asked for."""
        for item in items:
            yield item
            self._done += 1
            now = time.monotonic()
            if now - self._logged >= PERIOD:
                self._logged = now
                log.info("%s: %s of %s", self._work, f"{self._done:,}", f"{self._total:,}")
