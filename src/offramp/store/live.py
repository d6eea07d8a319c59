"""How far the trials of a store are, those under way among them, from its files alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from offramp.store.archive import HISTORY, Archive, Damaged
from offramp.store.manifest import Manifest, TrialPlan

COLUMNS = list(HISTORY.columns)


@dataclass(frozen=True, eq=False)
class LivePhase:
    """A phase of a trial."""

    key: str  # of its node
    name: str = ""  # empty where an earlier offramp planned it, and nothing was saved yet
    epoch: int = 0  # how many are done, up to the last checkpoint
    epochs: int | None = None  # how many there are; None where that is not known
    finished: bool = False  # whether its node is kept
    # columns COLUMNS, as `Archive.node_history` gives them, up to the last checkpoint
    history: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))
    holder: str | None = None  # who trains it, in words, where that is known
    failed: str | None = None  # why it failed when it was last trained, where nobody trains it now

    @property
    def title(self) -> str:
        """What to call it."""
        return self.name or self.key[:8]

    @property
    def begun(self) -> bool:
        return self.epoch > 0 or self.holder is not None

    @property
    def validation(self) -> list[tuple[str, float]]:
        """The accuracy of each exit on validation, 0 to 1, at the last epoch that is known."""
        rows = self.history
        rows = rows[(rows["split"] == "validation") & (rows["metric"] == "accuracy")]
        rows = rows[rows["epoch"] == rows["epoch"].max()]
        return [(str(e), float(v)) for e, v in zip(rows["exit"], rows["value"], strict=True)]


@dataclass(frozen=True, eq=False)
class TrialProgress:
    """A trial, finished or not."""

    trial: str  # its id
    phases: tuple[LivePhase, ...]  # in order
    plan: TrialPlan  # what is known of it either way
    manifest: Manifest | None = None  # of a finished trial

    @property
    def failed(self) -> str | None:
        """Why it cannot be had, where a phase of it failed."""
        return next((phase.failed for phase in self.phases if phase.failed is not None), None)

    @property
    def over(self) -> bool:
        """Whether no more comes of it unless it is begun again: it is finished, or a phase failed and
        nobody is at work on the others."""
        at_work = any(phase.holder is not None for phase in self.phases)
        return self.manifest is not None or (self.failed is not None and not at_work)

    def as_json(self) -> dict[str, Any]:
        """What it is and how far, for programs. accuracy: of each exit on test, once it is finished."""
        manifest = self.manifest
        return {
            "trial": self.trial,
            "strategy": self.plan.strategy,
            "seed": self.plan.seed,
            "phases": len(self.phases),
            "phases_finished": sum(phase.finished for phase in self.phases),
            "accuracy": [] if manifest is None else list(manifest.metrics["test"].accuracy),
            "finished": None if manifest is None else manifest.provenance.finished,
            "failed": self.failed,
        }


@dataclass(frozen=True)
class Reader:
    """Reads a store again and again; what cannot change any more is read once.

    Example:
        >>> from offramp.store.archive import Archive
        >>> [course.trial for course in Reader(Archive(store)).courses()]
        ['baseline-digits-cnn-digits-s42-…', …]
    """

    archive: Archive
    _phases: dict[str, LivePhase] = field(default_factory=dict)
    _manifests: dict[str, Manifest] = field(default_factory=dict)

    def loose(self, courses: Iterable[TrialProgress]) -> list[LivePhase]:
        """Phases under way that none of these trials reads: of a search."""
        keys = set(self.archive.checkpoints()) - phases_by_key(courses).keys()
        phases = (_under_way(key, self.archive) for key in sorted(keys))
        return [phase for phase in phases if phase.holder is not None]

    def look(self) -> tuple[list[TrialProgress], bool]:
        """`courses` now, and whether nothing more comes of any."""
        more = self.archive.more_comes()  # first: what ends meanwhile is then in this look
        begun = self.archive.begun()
        courses = list(self.courses())
        # One that ended meanwhile may be missing: it was no trial yet, and then it had no plan any more.
        more = more or self.archive.begun() != begun
        return courses, not more and all(course.over for course in courses)

    def courses(self) -> Iterator[TrialProgress]:
        """Every trial that is finished or begun, by id. What is damaged or goes away meanwhile is left
        out."""
        finished = set(self.archive.trials())
        seen: dict[str, LivePhase] = {}
        failures = self.archive.failures()
        for trial in sorted(finished | set(self.archive.begun())):
            try:
                if trial in finished:
                    manifest = self._manifest(trial)
                    plan = manifest.planned
                else:
                    manifest, plan = None, self.archive.planned(trial)
                names = dict.fromkeys(plan.nodes, "") | {p.node: p.name for p in plan.phases}
                phases = [self._phase(key, seen, failures) for key in names]
            except Damaged:
                continue
            # A phase that trials share may have a name of its own in each.
            own = zip(phases, names.values(), strict=True)
            named = tuple(replace(phase, name=name or phase.name) for phase, name in own)
            yield TrialProgress(trial, named, plan, manifest)

    def _manifest(self, trial: str) -> Manifest:
        if trial not in self._manifests:
            self._manifests[trial] = self.archive.read_trial(trial)
        return self._manifests[trial]

    def _phase(self, key: str, seen: dict[str, LivePhase], failures: Mapping[str, str]) -> LivePhase:
        """seen: what this look has read already, since trials share phases.  failures: of the store."""
        if key in self._phases:
            return self._phases[key]
        if key not in seen:
            if self.archive.has_node(key):
                self._phases[key] = phase = self._finished(key)
                return phase
            phase = _under_way(key, self.archive)
            seen[key] = replace(phase, failed=failures.get(key) if phase.holder is None else None)
        return seen[key]

    def _finished(self, key: str) -> LivePhase:
        record, history = self.archive.read_node(key), self.archive.node_history(key)
        epochs = record.summary.epochs
        return LivePhase(key, record.labels.phase, epochs, epochs, True, history[COLUMNS])


def phases_by_key(courses: Iterable[TrialProgress]) -> dict[str, LivePhase]:
    """Every phase once, by its key, as the first trial that has it calls it."""
    phases: dict[str, LivePhase] = {}
    for phase in (phase for course in courses for phase in course.phases):
        phases.setdefault(phase.key, phase)
    return phases


def _under_way(key: str, archive: Archive) -> LivePhase:
    note, holder = archive.checkpoint_note(key), archive.files.holder(key)
    if note is None:
        return LivePhase(key, holder=holder)
    return LivePhase(
        *(key, note.phase, note.epoch, note.epochs),
        history=pd.DataFrame(list(note.rows), columns=COLUMNS),
        holder=holder,
    )
