"""Batches of what arrives within a bounded wait, answered in a thread of their own."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.bundle.runtime import Bundle


@dataclass(frozen=True)
class Answer:
    """label: of the class.  confidence: 0 to 1.  exit: its number.  compute: MACs as a share of the
    network without early exits.  batch: images that were answered together."""

    label: str
    confidence: float
    exit: int
    compute: float
    batch: int


@dataclass(frozen=True)
class _Waiting:
    pixels: NDArray[np.float32]
    arrived: float
    answer: Future[Answer]


class Batcher:
    """Answers images in batches, in the order in which they came, until it is closed.

    bundle: what answers.  most: images of a batch.  wait: seconds that the first image of a batch waits
    for others; what came while the batch before was computed has waited already.
    """

    def __init__(self, bundle: Bundle, most: int, wait: float) -> None:
        self._bundle, self._most, self._wait = bundle, most, wait
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="answering", daemon=True)
        self._thread.start()

    def submit(self, pixels: NDArray[np.float32]) -> Future[Answer]:
        """The answer to come. pixels: [C, H, W], as `Bundle.pixels` makes them."""
        waiting = _Waiting(pixels, time.monotonic(), Future())
        self._queue.put(waiting)
        return waiting.answer

    def close(self) -> None:
        """Answer all that was submitted, then end."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        open_ = True
        while open_:
            first = self._queue.get()
            if first is None:
                return
            batch = [first]
            until = first.arrived + self._wait
            while len(batch) < self._most:
                try:
                    more = self._queue.get(timeout=max(until - time.monotonic(), 0))
                except queue.Empty:
                    break
                if more is None:
                    open_ = False
                    break
                batch.append(more)
            self._answer([waiting for waiting in batch if waiting.answer.set_running_or_notify_cancel()])

    def _answer(self, batch: list[_Waiting]) -> None:
        """Each image has its answer as soon as it leaves: those that stay do not hold it up."""
        if not batch:
            return
        try:
            for left in self._bundle.leaving(np.stack([waiting.pixels for waiting in batch])):
                classes = self._bundle.classes(left.logits)
                exit, compute = self._bundle.stages[left.stage].exit, self._bundle.compute(left.stage)
                for row, label, sure in zip(left.rows, classes, left.confidence, strict=True):
                    fields: Any = (self._bundle.labels[label], float(sure), exit, compute, len(batch))
                    batch[row].answer.set_result(Answer(*fields))
        except Exception as error:  # whoever waits is told, and the next batch may do better
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
