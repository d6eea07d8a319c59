"""What a command says while it works: data being read, and the live progress of a run."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.status import Status
from rich.text import Text

from offramp.cli.render import ranges
from offramp.escape import printable
from offramp.process import terminable
from offramp.terminal import console
from offramp.units import counted, duration

if TYPE_CHECKING:
    from offramp.engine.fit import EpochReport
    from offramp.study.plan.plan import Plan
    from offramp.study.run.events import Event

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
    stream = console(stderr=True).file  # where codes stay codes
    handler, warnings = logging.StreamHandler(stream), logging.StreamHandler(stream)
    for each in (handler, warnings):
        each.addFilter(_spelled)
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
            stream.write(CLEAR)
            stream.flush()


def _spelled(record: logging.LogRecord) -> bool:
    """Spells out what would steer the terminal, and lets the message pass."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


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


BAR = 24  # columns
MOST_SHOWN = 12  # groups at work, a line each


class Progress:
    """What has happened so far, and the display of it on standard error."""

    def __init__(self, plan: Plan, shown: bool) -> None:
        self.trials: dict[str, bool] = {}  # id → reused
        self.failed: dict[str, str] = {}
        self._plan = plan
        self._users = plan.users
        self._shown = shown
        self._console = console(stderr=True)
        self._began = time.monotonic()
        self._now = ["preparing", ""]  # what the moving lines say
        self._reused: set[str] = set()
        self._trained: set[str] = set()
        self._share: dict[str, float] = {}  # of a node's epochs that are done
        self._skipped = 0.0  # work done by earlier runs, in MACs
        self._notes: set[str] = set()
        self._waited: float | None = None  # since when nothing but waiting happens
        self._patience = SELDOM
        self._room = 0  # groups that a cluster trains at once; 0 on this machine alone
        self._at: dict[str, list[str]] = {}  # by the first key of a group at work on a cluster
        self._pace = [0.0, 0.0]  # MACs of finished epochs, and the seconds that they took
        self._live = Live(
            console=self._console, refresh_per_second=4, transient=True, get_renderable=self._screen
        )

    def __enter__(self) -> Progress:
        if self._shown and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def see(self, event: Event) -> None:
        """Take in one event and show it."""
        from offramp.study.run import events

        if not isinstance(event, events.Waiting):
            self._waited, self._patience = None, SELDOM
        match event:
            case events.Reused(key):
                if key not in self._trained:
                    self._reused.add(key)
                    self._skip(key, 1.0)
            case events.Began(keys, epoch):
                for key in keys:
                    self._skip(key, epoch / self._plan.nodes[key].recipe.epochs)
                self._now = [self._describe(keys[0]), f"epoch {epoch + 1}"]
                if event.where:
                    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
                    self._at[keys[0]] = [
                        f"{event.where} · {self._describe(keys[0])}{more}",
                        self._now[1],
                    ]
                    again = f", from epoch {epoch + 1} on" if epoch else ""
                    self._event(f"{self._at[keys[0]][0]}: begins{again}")
            case events.Epoch(report):
                epochs = self._plan.nodes[report.key].recipe.epochs
                self._share[report.key] = report.epoch / epochs
                self._now = [self._describe(report.key), _line(report, epochs)]
                if report.key in self._at:
                    self._at[report.key][1] = self._now[1]
                self._pace[0] += self._plan.macs(report.key) / epochs
                self._pace[1] += report.seconds
            case events.Left(keys):
                self._at = {key: at for key, at in self._at.items() if key not in keys}
            case events.Room(groups, machines):
                self._room = groups
                self._event(f"room for {groups} at once, on {counted(machines, 'machine')}")
            case events.Finished(key, seconds):
                self._trained.add(key)
                self._share[key] = 1.0
                place = f"[{self._done()}/{len(self._plan.nodes)}]"
                self._last(f"{place} {self._describe(key)} · {duration(seconds)}")
            case events.Failed(key, reason):
                self.failed[key] = reason
                self._last(f"failed: {self._describe(key)}: {reason}")
            case events.TrialDone(trial, reused):
                self.trials[trial] = reused and self.trials.get(trial, True)
            case events.Waiting(_, holder):
                self._wait(holder or "another process on this store")
            case events.Note(text):
                if text not in self._notes:
                    self._notes.add(text)
                    self._last(text, always=True)

    def failures(self) -> list[dict[str, Any]]:
        """The trials that could not be had, with the reason."""
        found = []
        for trial in self._plan.trials:
            reasons = [self.failed[key] for key in trial.keys if key in self.failed]
            if reasons:
                found.append({"strategy": trial.label, "seed": trial.seed, "reason": reasons[0]})
        return found

    def closing(self, store: str) -> str:
        """One sentence on what was done."""
        total = len(self._plan.trials)
        if len(self.trials) == total and all(self.trials.values()) and not self._trained:
            every = "The trial was" if total == 1 else f"All {total} trials were"
            return f"{every} in the store {store} already; nothing was trained."
        return (
            f"{len(self.trials)} of {counted(total, 'trial')} in {store}: "
            f"{counted(len(self._trained), 'node')} trained, {len(self._reused)} reused, "
            f"in {duration(time.monotonic() - self._began)}."
        )

    def _wait(self, holder: str) -> None:
        """Say for whom; a line stays where that takes long, and another one each time as long again."""
        self._now = [f"waiting for {holder}", ""]
        now = time.monotonic()
        self._waited = now if self._waited is None else self._waited
        if now - self._waited >= self._patience:
            self._patience = 2 * (now - self._waited)
            self._last(f"waiting for {holder}")

    def _skip(self, key: str, share: float) -> None:
        """So much of a node was done before this run."""
        self._skipped += self._plan.macs(key) * max(0.0, share - self._share.get(key, 0.0))
        self._share[key] = share

    def _done(self) -> int:
        return len(self._trained | self._reused)

    def _describe(self, key: str) -> str:
        node = self._plan.nodes[key]
        first, *others = dict.fromkeys(self._users[key])
        more = f" and {len(others)} more" if others else ""
        return f"seed {node.seed} · {first}{more} · {node.name}"

    def _screen(self) -> Group:
        """The moving lines; asked for several times a second."""
        total = sum(self._plan.macs(key) for key in self._plan.nodes)
        done = sum(self._plan.macs(key) * share for key, share in dict(self._share).items())
        seconds = self._seconds_left(done, total)
        left = "time left: ?" if seconds is None else f"{duration(seconds)} left"
        full = int(BAR * done / total)
        bar = f"{'━' * full}{'╌' * (BAR - full)} {100 * done / total:.0f} % · {left}"
        at = [" · ".join(each) for each in list(self._at.values())]
        more = [f"and {len(at) - MOST_SHOWN} more groups"] if len(at) > MOST_SHOWN else []
        now = [*at[:MOST_SHOWN], *more] if self._at else self._now
        lines = [f"{bar} · {self._done()}/{len(self._plan.nodes)} phases", *now]
        return Group(*(Text(printable(line)) for line in lines if line))

    def _seconds_left(self, done: float, total: int) -> float | None:
        """At the pace of this run; on a cluster, with the machines that there are now, and no less than
        the longest chain of phases takes. None before that can be told."""
        if self._room:
            from offramp.study.plan.schedule import Schedule

            if not self._pace[1]:
                return None
            chain = Schedule(self._plan, frozenset(self._trained | self._reused)).critical
            return max(chain, (total - done) / self._room) * self._pace[1] / self._pace[0]
        fresh = done - self._skipped
        return (time.monotonic() - self._began) * (total - done) / fresh if fresh > 0 else None

    def _event(self, text: str) -> None:
        """A line that stays where none moves: in a log."""
        if not self._live.is_started:
            self._last(text)

    def _last(self, text: str, always: bool = False) -> None:
        """A line that stays: whole, whatever the width."""
        if self._shown or always:
            self._console.print(Text(text), soft_wrap=True)


def _line(report: EpochReport, epochs: int) -> str:
    exits = sorted(report.validation_accuracy)
    accuracy = " ".join(f"{100 * report.validation_accuracy[k]:.1f}" for k in exits)
    where = f"exit{'s' if len(exits) > 1 else ''} {ranges(exits)}"
    return f"epoch {report.epoch}/{epochs} · loss {report.loss:.3f} · validation {accuracy} % at {where}"


def watch(events: Iterator[Event], progress: Progress) -> None:
    """Run to the end, or until interrupted, and show it."""
    with terminable(), closing(events), progress:  # type: ignore[type-var]  # a generator
        for event in events:
            progress.see(event)


@contextmanager
def moving(text: str) -> Iterator[Status]:
    """A moving line on a terminal; nothing elsewhere."""
    screen = console(stderr=True)
    status = screen.status(text)
    if not screen.is_terminal:
        yield status
        return
    with status:
        yield status
