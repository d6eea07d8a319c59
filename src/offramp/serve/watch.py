"""What a server sees of itself: every answer, runs to the end of a share of them, and labels."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field

from offramp.bundle.expected import read
from offramp.errors import OfframpError, check_fields
from offramp.policy import quality, scoring
from offramp.policy.quality import Interval
from offramp.serve.alarm import Detector, ShareChange
from offramp.serve.answers import WINDOWS, AnswerFile, Labels, Windows
from offramp.serve.page import changed

if TYPE_CHECKING:
    from offramp.bundle.runtime import Bundle
    from offramp.serve.batcher import Answer

YEAR = 365 * 24 * 3600 * 10  # images of a year, at ten a second
FallBack: TypeAlias = Literal["none", "raise", "all"]
LEAST = 1000  # images without new evidence, before an alarm ends
CALM = 4  # times the images that the alarm took, likewise


@dataclass(frozen=True)
class WatchOptions:
    """How a server watches itself. Raises OfframpError for what is out of range."""

    shadow: Annotated[float, Field(ge=0, le=1)] = 0.01  # share of images that run to the end too
    alarm_every: Annotated[int, Field(ge=0)] = YEAR  # images between false alarms; 0 turns the alarm off
    fall_back: FallBack = "none"  # what is done while an alarm stands
    answers: Path | None = None  # the file that keeps what was answered

    def __post_init__(self) -> None:
        check_fields(self, options=True)
        if self.fall_back != "none" and not self.alarm_every:
            raise OfframpError(
                "`fall_back` needs an alarm, and `alarm_every` 0 turns it off; leave one out"
            )


@dataclass(frozen=True)
class Alarm:
    """An alarm that stands."""

    since: float  # when it was raised, by the clock of the watch
    latest: int  # how many images there were when the evidence for it last sufficed
    took: int  # how many it took to suffice
    changes: tuple[ShareChange, ...]  # what changed, the clearest first


@dataclass(frozen=True)
class WindowShares:
    """The answers of a window. What no image says is None."""

    name: str
    images: int
    shares: tuple[float | None, ...]  # by exit
    confidence: float | None  # mean
    compute: float | None  # mean share of the plain network's MACs
    runs: int  # to the end
    disagreement: float | None  # of those


class Watch:
    """Sees every answer, in the order in which they go out. One thread uses it. clock: in seconds, never
    going back; chance: draws the images that run to the end too; tell: takes a line for whoever runs the
    server.

    Attributes:
        options: How it watches.
        exits: Their numbers.
        expected: Of calibration; None where the bundle does not say it.
        images: Answered since the start.
        alarm: The one that stands.
        alarms: How many there were.
        runs: To the end, by exit that the image leaves at.
        differing: How many of these answered otherwise than there.
        skipped: Runs to the end that were left out, as too many waited.
        labels: Those that came.

    Raises:
        OfframpError: What the bundle says to expect is not right, or the file of answers cannot be
            written.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: WatchOptions,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._usual, self.options, self._clock = bundle, options, clock
        self._chance, self._tell = chance or random.Random(), tell or _to_stderr
        self.exits = tuple(stage.exit for stage in bundle.stages)
        count = len(self.exits)
        self.expected = read(bundle)
        shares = () if self.expected is None else self.expected.shares
        self._shares = shares
        self._detector: Detector | None = None
        if shares and options.alarm_every:
            bounds = np.array([(each.low, each.high) for each in shares])
            self._detector = Detector(bounds, options.alarm_every)
        places = [count if each.exit is None else self.exits.index(each.exit) for each in shares]
        self._place = np.array(places, int)  # of the exit of each share; beyond all for none
        self._below = np.array([np.nan if each.below is None else each.below for each in shares])
        self._windows, self.labels = Windows(count + 4), Labels(count)
        self.runs, self.differing = [0] * count, [0] * count
        self.images = self.alarms = self.skipped = 0
        self.alarm: Alarm | None = None
        self._ended: float | None = None
        self._file = None if options.answers is None else AnswerFile(options.answers)
        for line in () if self._file is None else self._file.latest():
            self.labels.recall(line, self.exits)
        self._careful = fallen_back(bundle, options.fall_back)

    @property
    def bundle(self) -> Bundle:
        """What answers now."""
        return self._usual if self.alarm is None else self._careful

    def answered(self, answer: Answer, room: bool = True) -> bool:
        """See an answer before it goes out; whether its image shall run to the end too. room: whether
        one more can; else none is counted, at the last exit neither, or that would weigh more."""
        now, count = self._clock(), len(self.exits)
        exit = self.exits.index(answer.exit)
        self.images += 1
        self._windows.add(now, {exit: 1, count: answer.confidence, count + 1: answer.compute})
        self.labels.answered(answer.id, exit, answer.label)
        if self._file is not None:
            names = {"time": time.time(), "id": answer.id, "exit": answer.exit, "class": answer.label}
            numbers = {"confidence": answer.confidence, "compute_share": answer.compute}
            self._file.append({**names, **numbers})
        stage = self._stage(answer.scores)
        scores = np.full(count + 1, np.nan)
        scores[: len(answer.scores)] = answer.scores
        here = np.where(self._place <= stage, scores[self._place] < self._below, np.nan)
        self._judge(np.where(np.isnan(self._below) & (self._place < count), self._place == stage, here))
        drawn = self._chance.random() < self.options.shadow
        if drawn and not room:
            self.skipped += 1
            return False
        if drawn and stage == count - 1:  # it has run to the end
            self.ran(stage, False)
            return False
        return drawn

    def ran(self, stage: int, differs: bool) -> None:
        """See a run to the end, as `run_through` returns it."""
        count = len(self.exits)
        self.runs[stage] += 1
        self.differing[stage] += differs
        self._windows.add(self._clock(), {count + 2: 1, count + 3: differs})
        self._judge(np.where(self._place == count, float(differs), np.nan))

    def label(self, id: str, label: str) -> bool:
        """See the label of an answer; whether one of that id waited for it."""
        waited = self.labels.label(id, label)
        if waited and self._file is not None:
            self._file.append({"time": time.time(), "id": id, "label": label})
        return waited

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def windows(self) -> tuple[WindowShares, ...]:
        """From the shortest."""
        now = self._clock()
        return tuple(self._window(name, now, seconds) for name, seconds in WINDOWS.items())

    @property
    def stands(self) -> float:
        """Seconds since the alarm was raised that stands."""
        return 0.0 if self.alarm is None else self._clock() - self.alarm.since

    @property
    def ended(self) -> float | None:
        """Seconds since the last alarm ended."""
        return None if self._ended is None else self._clock() - self._ended

    @property
    def disagreement(self) -> Interval | None:
        """Share of images whose answer is not the last exit's; None without runs."""
        runs = sum(self.runs)
        return quality.anytime(sum(self.differing), runs) if runs else None

    @property
    def lost(self) -> int:
        """Lines that the file of answers lacks."""
        return 0 if self._file is None else self._file.lost

    def _window(self, name: str, now: float, seconds: int) -> WindowShares:
        sums, count = self._windows.sums(now, seconds).tolist(), len(self.exits)
        images, (sure, spent, runs, differing) = sum(sums[:count]), sums[count:]

        def mean(total: float, of: float = images) -> float | None:
            return total / of if of else None

        shares = tuple(mean(each) for each in sums[:count])
        numbers = (mean(sure), mean(spent), int(runs), mean(differing, runs))
        return WindowShares(name, int(images), shares, *numbers)

    def _stage(self, scores: Sequence[float]) -> int:
        """Where the policy lets an image leave, also where it went on since an alarm stands."""
        for at, (stage, score) in enumerate(zip(self._usual.stages[:-1], scores, strict=False)):
            # In float32, as the bundle compares them.
            if stage.threshold is not None and np.float32(score) >= np.float32(stage.threshold):
                return at
        return len(self.exits) - 1

    def _judge(self, hits: np.ndarray) -> None:
        if self._detector is None:
            return
        before = self.alarm
        if self._detector.observe(hits):
            changes = self._detector.changes(self._shares)
            self._detector.restart()
            since = self._clock() if before is None else before.since
            self.alarm = Alarm(
                since, self.images, max((each.took for each in changes), default=1), changes
            )
            if before is None:
                self.alarms += 1
                self._tell(f"alarm: {' '.join(map(changed, changes))}")
        elif before and self.images - before.latest >= max(LEAST, CALM * before.took):
            self.alarm, self._ended = None, self._clock()
            self._tell("the alarm has ended")


def run_through(bundle: Bundle, pixels: np.ndarray) -> tuple[int, bool]:
    """An image in all stages: at which it leaves, from 0, and whether its answer there is not the one of
    the last. pixels: [1, C, H, W]."""
    logits = bundle.all_exits(pixels)
    rules = [(stage.threshold, stage.temperature, stage.gate) for stage in bundle.stages]
    stage = int(scoring.leaves(bundle.score, logits, *zip(*rules, strict=True))[0])
    own = bundle.stages[-1].threshold is None
    says = scoring.all_answer_logits(bundle.score, logits, final=own)
    answers = scoring.answers(says, bundle.several)[0]
    return stage, bool(np.any(answers[stage] != answers[-1]))


def fallen_back(bundle: Bundle, how: FallBack) -> Bundle:
    """What answers while an alarm stands: by thresholds raised half of the way to certainty, or by one
    exit more where exits are counted; by the last exit alone; or as ever."""
    kind = scoring.SCORES[bundle.score]

    def raised(threshold: float | None) -> float | None:
        if threshold is None or how == "all":
            return None
        if kind.counts:
            return threshold + 1
        return (threshold + kind.high) / 2 if threshold < kind.high else None

    if how == "none":
        return bundle
    *early, last = (stage.threshold for stage in bundle.stages)
    return bundle.with_thresholds([*map(raised, early), last])


def _to_stderr(line: str) -> None:
    print(f"offramp: {line}", file=sys.stderr, flush=True)
