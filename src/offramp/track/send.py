"""What a store says of its trials, sent to a tracker: what is new since the last time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from offramp.files import RECORDS, read_regular, write_whole
from offramp.hashing import from_text
from offramp.store.live import LivePhase, TrialProgress
from offramp.store.manifest import Manifest

Steps = Mapping[int, Mapping[str, float]]
"""Numbers by epoch of a phase, from 1, and by name, such as `validation/accuracy/exit 1`."""
AT_END = "train-eval"  # looked at when a phase ends, of its last epoch and of its best one
CLOSED, FAILED = "closed", "failed"  # in the file of a SentLog, beside keys of phases


@dataclass(frozen=True)
class TrialUpdate:
    """What is new of a trial."""

    phases: tuple[tuple[LivePhase, Steps], ...] = ()  # those with numbers
    # the closing numbers, by name, such as `test/accuracy/exit 1`, once it is finished
    results: Mapping[str, float] | None = None
    failed: str | None = None  # why it cannot be had, where nobody is at work on it any more

    @property
    def curves(self) -> Iterator[tuple[int, dict[str, float]]]:
        """The numbers of each epoch, by names that begin with the phase's."""
        for phase, steps in self.phases:
            for epoch, numbers in steps.items():
                yield epoch, {f"{phase.title}/{name}": value for name, value in numbers.items()}


class TrackedTrial(Protocol):
    """A trial in a tracker."""

    def closed(self) -> bool:
        """Whether all of it was sent before."""

    def sent(self, phase: LivePhase) -> int:
        """The last epoch of a phase that was sent; 0 for none."""

    def send(self, update: TrialUpdate) -> None:
        """Take in all that is new, which may be nothing, and a failure that is known already."""


class Tracker(Protocol):
    """Where trials go. Raises OfframpError where it cannot be reached."""

    @property
    def whole(self) -> bool:
        """Whether it takes a trial once it is over, and not before."""

    def open(self, course: TrialProgress) -> TrackedTrial:
        """A trial, begun or continued, with its `settings`."""


@runtime_checkable
class FileTracker(Protocol):
    """A tracker that keeps files too."""

    def attach(self, files: Iterable[str], store: str) -> None:
        """Keep files or folders, such as a report, beside the trials of a store.

        Args:
            files: their paths.
            store: its whole path or address; what is kept of another stays.
        """


@dataclass(frozen=True)
class SentLog:
    """A trial in a tracker that cannot be asked: a small file remembers what was sent of it."""

    path: Path
    # the last epoch that was sent, by key of the phase; empty before anything was
    epochs: dict[str, int]
    write: Callable[[TrialUpdate], None]  # sends an update

    @staticmethod
    def at(path: Path, write: Callable[[TrialUpdate], None]) -> SentLog:
        """The log at `path`; an empty one where there is none that can be read."""
        try:
            content = from_text(read_regular(path, RECORDS))
        except (OSError, ValueError):
            content = None
        pairs = content.items() if isinstance(content, dict) else ()
        return SentLog(path, {str(k): v for k, v in pairs if isinstance(v, int)}, write)

    def closed(self) -> bool:
        return CLOSED in self.epochs

    def sent(self, phase: LivePhase) -> int:
        return self.epochs.get(phase.key, 0)

    def send(self, update: TrialUpdate) -> None:
        failure = update.failed is not None and not self.epochs.get(FAILED)
        if update.phases or update.results is not None or failure:
            self.write(update)
            self.remember(update)

    def remember(self, update: TrialUpdate) -> None:
        """That all of it was sent."""
        self.epochs.update({phase.key: max(steps) for phase, steps in update.phases})
        self.epochs[FAILED] = int(update.failed is not None)
        if update.results is not None:
            self.epochs[CLOSED] = 1
        write_whole(self.path, json.dumps(self.epochs))


@dataclass(frozen=True)
class SendCounts:
    """How much there was to send."""

    trials: int = 0
    closed: int = 0
    points: int = 0

    def __add__(self, other: SendCounts) -> SendCounts:
        points = self.points + other.points
        return SendCounts(self.trials + other.trials, self.closed + other.closed, points)


def send(courses: Iterable[TrialProgress], tracker: Tracker) -> SendCounts:
    """Everything of `courses` that `tracker` has not. Raises OfframpError as it does."""
    counts = SendCounts()
    for course in courses:
        begun = course.over or any(phase.begun for phase in course.phases)
        if begun and (course.over or not tracker.whole):
            counts += _send(course, tracker.open(course))
    return counts


def _send(course: TrialProgress, tracked: TrackedTrial) -> SendCounts:
    if tracked.closed():
        return SendCounts(1, 1)
    phases = []
    for phase in course.phases:
        steps = steps_of(phase, course.plan.places, tracked.sent(phase))
        if not phase.finished:  # its last epoch goes with the word that it is finished
            steps = {epoch: numbers for epoch, numbers in steps.items() if epoch != phase.epochs}
        if steps:
            phases.append((phase, steps))
    finished = None if course.manifest is None else results(course.manifest)
    if course.proposal is not None and course.proposal.value is not None:
        finished = {"validation/accuracy": course.proposal.value}
    failed = course.failed if finished is None and course.over else None
    tracked.send(TrialUpdate(tuple(phases), finished, failed))
    points = sum(len(numbers) for _, steps in phases for numbers in steps.values())
    return SendCounts(1, int(finished is not None), points)


def steps_of(phase: LivePhase, places: Sequence[str], after: int = 0) -> Steps:
    """The numbers of a phase's newer epochs, and with them those of AT_END, which may be of an earlier
    epoch. places: of the network's exits, in order; after: the last epoch that is not asked for."""
    names = {place: f"exit {number}" for number, place in enumerate(places, start=1)}
    steps: dict[int, dict[str, float]] = {}
    rows = phase.history
    new = rows["epoch"] > after
    rows = rows[new | ((rows["split"] == AT_END) & bool(new.any()))]
    columns = (rows[name] for name in ("epoch", "split", "exit", "metric", "value"))
    for epoch, split, exit, metric, value in zip(*columns, strict=True):
        name = "/".join(str(part) for part in (split, metric, names.get(exit, exit)) if part != "")
        steps.setdefault(int(epoch), {})[name] = float(value)
    return steps


def settings(course: TrialProgress) -> dict[str, Any]:
    """What a tracker filters by: plain values by name, as far as they are known."""
    plan, proposal = course.plan, course.proposal
    recipe = {} if plan.recipe is None else plan.recipe.as_json()
    values = {
        "trial": course.trial if proposal is None else None,
        "seed": plan.seed,
        "strategy": plan.strategy,
        "study": plan.study,
        "backbone": plan.backbone,
        "data": plan.data,
        **{f"strategy.{name}": value for name, value in plan.options.items()},
        **{f"recipe.{k}": v for k, v in recipe.items() if isinstance(v, (str, int, float, bool))},
        **({} if proposal is None else proposal.settings),
    }
    return {name: value for name, value in values.items() if value is not None}


def results(manifest: Manifest) -> dict[str, float]:
    """Closing accuracy and loss of each exit, by split, and what each costs."""
    numbers = {}
    for split, metrics in manifest.metrics.items():
        pairs = zip(manifest.exits, metrics.accuracy, metrics.cross_entropy, strict=True)
        for exit, accuracy, loss in pairs:
            numbers[f"{split}/accuracy/exit {exit}"] = accuracy
            numbers[f"{split}/cross_entropy/exit {exit}"] = loss
    for exit, macs in zip(manifest.exits, manifest.macs, strict=True):
        numbers[f"macs/exit {exit}"] = float(macs)
    return numbers
