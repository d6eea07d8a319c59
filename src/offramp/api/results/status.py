"""What a store holds, and what is trained into it now."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from offramp.api.answer import answer
from offramp.api.opening import archived, awaited
from offramp.api.options import RUNS, CommandOption, StorePlace, pause
from offramp.errors import OfframpError, nearest
from offramp.terminal import TextBlocks, TextTable, console, rendered
from offramp.units import counted, size

if TYPE_CHECKING:
    from offramp.store.live import LivePhase, Reader, TrialProgress

LATEST = 8  # finished trials that are shown while others train
TEST = "test, %"
SortBy = Literal["trial", "seed", "accuracy", "finished", "phases"]
ORDERS: Mapping[SortBy, Callable[[dict[str, Any]], Any]] = {
    "trial": lambda row: row["trial"],
    "seed": lambda row: (row["seed"] or 0, row["trial"]),
    "accuracy": lambda row: -(row["accuracy"][-1] if row["accuracy"] else -1),
    "finished": lambda row: row["finished"] or "~",
    "phases": lambda row: (row["phases_finished"] - row["phases"], row["trial"]),
}


@answer
class StoreStatus:
    """What a store holds.

    Attributes:
        store: Where it is.
        strategies: How many finished trials there are, by strategy, network and data set.
        unfinished: Ids of trials that were begun.
        nodes: How many finished phases of training there are.
        checkpoints: Phases that a run can go on from.
        bytes: What it takes on the disk.
        made_with: Versions of libraries and devices by name, of all trials.
        mixed: Those of them that differ between trials and may change bits.
    """

    store: str
    strategies: Mapping[tuple[str, str, str], int]
    unfinished: Sequence[str]
    nodes: int
    checkpoints: Sequence[str]
    bytes: int
    made_with: Mapping[str, Sequence[str]]
    mixed: Sequence[str]

    @property
    def trials(self) -> int:
        """How many are finished."""
        return sum(self.strategies.values())

    def as_json(self) -> dict[str, Any]:
        names = ("strategy", "backbone", "data")
        return {
            "store": self.store,
            "trials": self.trials,
            "unfinished": self.unfinished,
            "nodes": self.nodes,
            "checkpoints": self.checkpoints,
            "bytes": self.bytes,
            "made_with": self.made_with,
            "mixed": list(self.mixed),
            "strategies": [
                {**dict(zip(names, each, strict=True)), "trials": count}
                for each, count in self.strategies.items()
            ],
        }

    def document(self) -> TextBlocks:
        rows = [(*names, str(count)) for names, count in self.strategies.items()]
        listing = TextTable(
            ["strategy", "backbone", "data"], ["trials"], rows, title=f"Store {self.store}"
        )
        totals = (
            f"{counted(self.trials, 'trial')} finished, {len(self.unfinished)} unfinished; "
            f"{counted(self.nodes, 'phase')}, {counted(len(self.checkpoints), 'checkpoint')}; "
            f"{size(self.bytes)}."
        )
        differing = [f"{name} ({', '.join(self.made_with[name])})" for name in self.mixed]
        warning = f"Warning: trials differ in {'; '.join(differing)}; their bits may too."
        return [*([listing] if rows else []), totals, *([warning] if differing else [])]


def status(store: StorePlace = RUNS) -> StoreStatus:
    """Show what a store holds, or watch a run.

    It counts trials (by strategy, network and data set), finished phases of training,
    checkpoints that a run can go on from, and bytes.

    Args:
        store: The store: a folder, or s3://BUCKET/NAME.

    Raises:
        OfframpError: There is no store.

    On the command line:
        offramp status runs/demo
    """
    from offramp.store.manifest import BITS
    from offramp.store.record import made_with

    archive = archived(store)
    manifests = [archive.read_trial(trial) for trial in archive.trials()]
    versions = made_with(archive, manifests)
    return StoreStatus(
        store=str(archive.root),
        strategies=Counter((m.strategy, m.network.backbone, m.data.label) for m in manifests),
        unfinished=archive.begun(),
        nodes=len(archive.nodes()),
        checkpoints=archive.checkpoints(),
        bytes=archive.size(),
        made_with=versions,
        mixed=[name for name in BITS if len(versions[name]) > 1],
    )


@answer
class TrialList:
    """Trials of a store, finished or not.

    Attributes:
        rows: A mapping for each trial, in the types of JSON.
        failed: Whether it is said why trials failed.
    """

    rows: Sequence[Mapping[str, Any]]
    failed: bool

    def as_json(self) -> dict[str, Any]:
        return {"trials": list(self.rows)}

    def document(self) -> TextBlocks:
        if not self.rows:
            return ["No trial matches."]
        reasons = [f"{row['trial']}: {row['failed']}" for row in self.rows if self.failed]
        return [trial_table(self.rows), *reasons]


def trials(
    store: StorePlace = RUNS,
    *,
    strategy: Annotated[str | None, CommandOption("NAME")] = None,
    seed: int | None = None,
    unfinished: bool = False,
    failed: bool = False,
    sort: Annotated[SortBy, CommandOption("ORDER")] = "trial",
) -> TrialList:
    """List every trial, by its id.

    Args:
        store: The store: a folder, or s3://BUCKET/NAME.
        strategy: Only trials of this strategy.
        seed: Only trials of this seed.
        unfinished: Only trials that are not finished.
        failed: Only trials with a failed phase, and why.
        sort: Their order. trial, seed or finished; accuracy: of the final exit on test, the best first;
            phases: those with the most left to do first.

    Raises:
        OfframpError: There is no store, or no trial of the strategy.

    On the command line:
        offramp status runs/demo --trials --strategy joint --sort accuracy
    """
    from offramp.store.live import Reader

    progress = list(Reader(archived(store)).courses())
    return TrialList(trial_rows(progress, strategy, seed, unfinished, failed, sort), failed)


@answer
class LiveStatus:
    """What is trained into a store now.

    Attributes:
        store: Where it is.
        trials: How far each trial is.
        loose: Phases at work that belong to no trial, as in a search.
    """

    store: str
    trials: Sequence[TrialProgress]
    loose: Sequence[LivePhase]
    _reader: Reader | None = None  # to look again
    _pause: float = 0.0  # seconds between two looks

    def as_json(self) -> dict[str, Any]:
        return {
            "store": self.store,
            "trials": [each.as_json() for each in self.trials],
            "under_way": [
                {
                    "node": phase.key,
                    "phase": phase.name,
                    "epoch": phase.epoch,
                    "epochs": phase.epochs,
                    "validation": dict(phase.validation),
                    "holder": phase.holder,
                }
                for phase in self._at_work()
            ],
        }

    def document(self) -> TextBlocks:
        from offramp.store.live import phases_by_key

        done = [each for each in self.trials if each.manifest is not None]
        phases = phases_by_key(self.trials)
        finished = sum(phase.finished for phase in phases.values())
        parts: list[str | TextTable] = [
            f"Store {self.store}",
            f"{len(done)} of {counted(len(self.trials), 'trial')} finished, {finished} of "
            f"{counted(len(phases), 'phase')}",
        ]
        if working := self._at_work():
            rows = [_working(phase, self.trials) for phase in working]
            parts.append(TextTable(["under way"], ["epoch", "validation, %"], rows))
        failed = [(t.trial, t.failed) for t in self.trials if t.manifest is None and t.failed]
        if failed:
            parts.append(TextTable(["failed", "why"], rows=failed))
        if done:
            latest = sorted(done, key=_finished)[-LATEST:]
            more = "" if len(done) <= LATEST else f", the latest {LATEST} of {len(done)}"
            parts.append(TextTable([f"finished{more}"], [TEST], map(_accuracies, latest)))
        # Last, as a picture that is higher than the terminal loses its end: there may be many of them.
        left = [t for t in self.trials if t.manifest is None and t.failed is None]
        begun = [t for t in left if any(p.begun or p.finished for p in t.phases)]
        if begun:
            far = [(t.trial, f"{sum(p.finished for p in t.phases)}/{len(t.phases)}") for t in begun]
            parts.append(TextTable(["begun"], ["phases"], far))
        if len(left) > len(begun):
            parts += [f"{counted(len(left) - len(begun), 'trial')} not begun"]
        return parts

    def _at_work(self) -> list[LivePhase]:
        from offramp.store.live import phases_by_key

        phases = phases_by_key(self.trials).values()
        return [*(phase for phase in phases if phase.begun and not phase.finished), *self.loose]

    def run(self, as_json: bool, show: Callable[[], None]) -> int:
        """Show it once, or on a terminal, until nothing is left to train."""
        reader = self._reader
        if as_json or reader is None or not sys.stdout.isatty():
            show()
            return 0
        from rich.live import Live

        screen = console()
        try:
            with Live(console=screen, auto_refresh=False, screen=False) as live:
                while True:
                    progress, over = reader.look()
                    picture = LiveStatus(self.store, progress, reader.loose(progress))
                    live.update(rendered(picture.document(), screen.width), refresh=True)
                    if over:
                        return 0
                    time.sleep(self._pause)
        except KeyboardInterrupt:
            return 0


def watch(
    store: StorePlace = RUNS,
    *,
    every: Annotated[float, CommandOption("TIME", parse=pause(0.5), default="5s")] = 5.0,
    once: bool = False,
) -> LiveStatus:
    """Watch a store while others train into it.

    It shows the phases at work, their epoch and accuracy on validation, who trains them, and how far
    each trial is. It only reads, so it may run on any machine that sees the store. An epoch shows once
    it is saved, about every twenty seconds. It ends with Ctrl-C, when nothing is left to train, or when
    the rest has failed.

    Args:
        store: The store: a folder, or s3://BUCKET/NAME.
        every: Time between two looks, such as 30s.
        once: Look once, then end.

    Returns:
        What there is now. A command on a terminal goes on looking.

    Raises:
        OfframpError: There is no store.

    On the command line:
        offramp status runs/demo --watch
        offramp status s3://bucket/runs --watch --every 30s
        offramp status runs/demo --watch --once
    """
    from offramp.store.live import Reader

    reader = Reader((archived if once or not sys.stdout.isatty() else awaited)(store))
    progress = list(reader.courses())
    root = str(reader.archive.root)
    return LiveStatus(root, progress, list(reader.loose(progress)), None if once else reader, every)


def _working(phase: LivePhase, trials: Sequence[TrialProgress]) -> tuple[str, str, str]:
    users = [each.trial for each in trials if any(p.key == phase.key for p in each.phases)]
    more = f", for {len(users) - 1} more" if len(users) > 1 else ""
    holder = (phase.holder or "nobody, saved").removeprefix("process ").replace("at it for ", "")
    first = users[0] if users else "a search"
    name = f"{first}\n{phase.title}{more}, by {holder}"  # an id has a line of its own
    epochs = f"{phase.epoch}/{phase.epochs}" if phase.epochs else str(phase.epoch)
    return name, epochs, accuracies(value for _, value in phase.validation)


def _finished(trial: TrialProgress) -> str:
    assert trial.manifest is not None
    return trial.manifest.provenance.finished or ""


def _accuracies(trial: TrialProgress) -> tuple[str, str]:
    assert trial.manifest is not None
    return trial.trial, accuracies(trial.manifest.metrics["test"].accuracy)


def trial_rows(
    trials: Sequence[TrialProgress],
    strategy: str | None = None,
    seed: int | None = None,
    unfinished: bool = False,
    failed: bool = False,
    sort: SortBy = "trial",
) -> list[dict[str, Any]]:
    """Trials in the types of JSON, chosen and sorted as by `trials`."""
    names = sorted({each.plan.strategy for each in trials if each.plan.strategy is not None})
    if strategy is not None and names and strategy not in names:
        raise OfframpError(f"no trial of the strategy '{strategy}'{nearest(strategy, names)}")
    rows = [
        each.as_json()
        for each in trials
        if (strategy is None or each.plan.strategy == strategy)
        and (seed is None or each.plan.seed == seed)
        and not (unfinished and each.manifest is not None)
        and not (failed and each.failed is None)
    ]
    return sorted(rows, key=ORDERS[sort])


def trial_table(rows: Iterable[Mapping[str, Any]]) -> TextTable:
    """A line for each trial. Ids stay whole, to be copied: a narrow screen has fewer columns."""
    return TextTable(
        ["trial", "finished", "at"],
        ["seed", "phases", TEST],
        [
            (
                row["trial"],
                *_local(row["finished"]),
                str(row["seed"]),
                f"{row['phases_finished']}/{row['phases']}",
                accuracies(row["accuracy"]),
            )
            for row in rows
        ],
        note="test: accuracy of each exit, the final one last.",
        spare=("at", "seed", "finished", "phases"),
    )


def accuracies(values: Iterable[float]) -> str:
    """Of each exit, in percent."""
    return " ".join(f"{100 * value:.1f}" for value in values) or "-"


def _local(when: object) -> tuple[str, str]:
    """The day and time of provenance, in the time of logs; dashes for anything else."""
    try:
        local = datetime.fromisoformat(str(when)).astimezone()
    except ValueError:
        return "-", "-"
    return f"{local:%Y-%m-%d}", f"{local:%H:%M}"
