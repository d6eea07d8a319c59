"""Images of many requests, stage by stage: those that stay of several batches meet before the next."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.bundle.runtime import Bundle, ExitedRows, StageInput, joined

WORKERS = 2  # threads that run stages: one computes while the other packs and answers
PASSES = 3  # runs of other stages that images wait for, whatever is fuller
ENOUGH = 32  # images, from which on no batch is quicker by more of them
FIXED = 1 / 8  # share of a run's time that does not depend on how many images there are, in a full batch


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer for an image."""

    label: str  # of the class
    confidence: float  # 0 to 1
    exit: int  # its number
    compute: float  # MACs as a share of the network without early exits
    batch: int  # images that were at its last stage together
    scores: tuple[float, ...]  # how sure each stage was that it ran
    logits: NDArray[np.float32]
    probabilities: Sequence[float] | None = None  # of each label, where an image has several


@dataclass(frozen=True)
class WaitingImage:
    """An image that waits for its answer."""

    arrived: float  # seconds of `time.monotonic`
    answer: Future[Answer]


@dataclass(frozen=True)
class ImageGroup:
    """Images that have come to a stage together."""

    images: StageInput
    waiting: tuple[WaitingImage, ...]  # one an image

    def __getitem__(self, rows: slice) -> ImageGroup:
        return ImageGroup(self.images[rows], self.waiting[rows])


class StageQueues:
    """The images before each stage, and which stage runs next.

    The fullest runs next, the deepest of several, so that late stages run for what stays of several
    batches. One that was passed over `PASSES` times runs before any other: no image waits without end.
    Images before the first stage wait for others until their batch is full, up to `wait` seconds.

    Args:
        full: By stage: with how many images a batch is full, so that more make it hardly quicker.
        most: Images of a batch.
        wait: Seconds.
    """

    def __init__(self, full: Sequence[int], most: int, wait: float) -> None:
        self.full, self._most, self._wait = full, most, wait
        self._queues: list[deque[ImageGroup]] = [deque() for _ in full]
        self._counts, self._passed = [0] * len(full), [0] * len(full)

    def __len__(self) -> int:
        return sum(self._counts)

    def put(self, stage: int, group: ImageGroup) -> None:
        self._queues[stage].append(group)
        self._counts[stage] += len(group.waiting)

    def due(self) -> float:
        """When the images before the first stage need wait for no others; there must be some."""
        full = self._counts[0] >= self.full[0]
        return float("-inf") if full else self._queues[0][0].waiting[0].arrived + self._wait

    def pop(self, now: float) -> tuple[int, list[ImageGroup]] | None:
        """The stage that runs next, and its images in the order in which they came to it; None where
        all wait for others."""
        ready = [at for at, count in enumerate(self._counts) if count and (at or self.due() <= now)]
        if not ready:
            return None
        fullness = {at: min(self._counts[at] / self.full[at], 1.0) for at in ready}
        stage = max(ready, key=lambda at: (max(self._passed[at] - PASSES, -1), fullness[at], at))
        self._passed = [passed + (at in ready) for at, passed in enumerate(self._passed)]
        self._passed[stage] = 0
        groups: list[ImageGroup] = []
        room = min(self._most, self._counts[stage])
        self._counts[stage] -= room
        while room:
            group = self._queues[stage].popleft()
            if len(group.waiting) > room:
                self._queues[stage].appendleft(group[room:])
                group = group[:room]
            groups.append(group)
            room -= len(group.waiting)
        return stage, groups


class Batcher:
    """Answers images, each as soon as it leaves, until it is closed.

    Args:
        bundle: What answers.
        most: Images of a batch.
        wait: Seconds that an image waits for others, while something runs.
    """

    def __init__(self, bundle: Bundle, most: int, wait: float) -> None:
        self._bundle = bundle
        self._most = most
        self._queues = StageQueues([most] * len(bundle.stages), most, wait)
        self._changed = threading.Condition()
        self._hurried = self._closed = False
        self._running = 0  # threads that run a stage
        self._threads = [
            threading.Thread(target=self._work, name="answering", daemon=True) for _ in range(WORKERS)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, pixels: NDArray[np.float32]) -> Future[Answer]:
        """The answer to come. pixels: [C, H, W], as `Bundle.pixels` makes them."""
        waiting = WaitingImage(time.monotonic(), Future())
        self._put(0, ImageGroup(StageInput({None: [pixels[None]]}), (waiting,)))
        return waiting.answer

    def warm(self) -> None:
        """Run every stage, so that the first image does not pay for it, and learn when batches are full.
        Raises BundleError where the network fails."""
        full = full_batches(self._bundle, self._most)
        with self._changed:
            self._queues.full = full
            self._changed.notify()

    def hurry(self) -> None:
        """Let no image wait for others any more."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def close(self) -> None:
        """Answer all that was submitted, then end."""
        with self._changed:
            self._closed = True
        self.hurry()
        for thread in self._threads:
            thread.join()

    def _put(self, stage: int, group: ImageGroup) -> None:
        with self._changed:
            self._queues.put(stage, group)
            self._changed.notify()

    def _work(self) -> None:
        while (work := self._next()) is not None:
            stage, groups = work
            if not stage:  # without those whose client went away
                groups = [group for group in groups if _begins(group)]
            if groups:
                self._run(stage, groups)
            with self._changed:
                self._running -= 1

    def _next(self) -> tuple[int, list[ImageGroup]] | None:
        """What to run; None at the end."""
        with self._changed:
            while True:
                idle = self._hurried or not self._running
                now = float("inf") if idle else time.monotonic()
                work = self._queues.pop(now)
                if work is not None or self._closed:  # who is at work runs what comes of it
                    self._running += 1
                    return work
                self._changed.wait(max(self._queues.due() - now, 0) if self._queues else None)

    def _run(self, stage: int, groups: Sequence[ImageGroup]) -> None:
        """A stage. Each image has its answer as soon as it leaves: those that stay do not hold it up."""
        bundle, waiting = self._bundle, [each for group in groups for each in group.waiting]
        try:
            left, staying, onward = bundle.step(stage, joined([group.images for group in groups]))
            leaving = [] if left is None else list(answers(bundle, left, len(waiting)))
        except Exception as error:  # whoever waits is told, and the next batch may do better
            for each in waiting:
                each.answer.set_exception(error)
            return
        if onward is not None:  # from here on nothing fails: no image has two outcomes
            self._put(stage + 1, ImageGroup(onward, tuple(waiting[row] for row in staying)))
        for row, answer in leaving:
            waiting[row].answer.set_result(answer)


def answers(bundle: Bundle, left: ExitedRows, batch: int) -> Iterator[tuple[int, Answer]]:
    """The answers of images that leave at a stage, each with its row. batch: images that ran there."""
    exit, compute = bundle.stages[left.stage].exit, bundle.compute(left.stage)
    sure, scores = left.confidence.tolist(), left.scores.tolist()
    for at, (row, label) in enumerate(zip(left.rows, bundle.classes(left.logits), strict=True)):
        odds = left.probabilities[at].tolist() if bundle.several else None
        fields = (bundle.name(label), sure[at], exit, compute, batch, tuple(scores[at]))
        yield row, Answer(*fields, left.logits[at], odds)


def _begins(group: ImageGroup) -> bool:
    """Whether an image is still waited for; its answer cannot be canceled from here on."""
    return all(each.answer.set_running_or_notify_cancel() for each in group.waiting)


def full_batches(bundle: Bundle, most: int) -> list[int]:
    """By stage, with how many images a batch is full, at most `most`: where what a run takes in any case
    is `FIXED` of its time. Every stage runs for that."""
    most = min(most, ENOUGH)
    size = (bundle.preprocessing.channels, *bundle.preprocessing.size)
    through = bundle.with_thresholds([None] * len(bundle.stages))
    seconds: dict[int, list[float]] = {}
    for batch in (1, most):
        images = StageInput({None: [np.zeros((batch, *size), np.float32)]})
        seconds[batch] = []
        for at in range(len(through.stages)):
            for _ in range(2):  # the first is for the start
                began = time.perf_counter()
                onward = through.step(at, images)[2]
                spent = time.perf_counter() - began
            seconds[batch].append(spent)
            images = images if onward is None else onward
    return [full_batch(*pair, most) for pair in zip(seconds[1], seconds[most], strict=True)]


def full_batch(alone: float, together: float, most: int) -> int:
    """With how many images a batch is full. alone, together: seconds of a run with one image, with
    `most`; what is between is taken as a line."""
    each = (together - alone) / max(most - 1, 1)
    fixed = alone - each
    if each <= 0:
        return most
    return min(max(round(fixed * (1 / FIXED - 1) / each), 1), most)
