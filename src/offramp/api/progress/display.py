"""What a job shows while it works: moving lines on a terminal or in a notebook, and lines of a log at a
steady pace."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from rich.console import Group
from rich.live import Live
from rich.text import Text

from offramp.api.progress.log import Line, Log, moving, reading_shown
from offramp.api.reporter import finished, warn
from offramp.api.run_state import RunState
from offramp.api.train.search import setting_words
from offramp.escape import printable
from offramp.process import terminable
from offramp.terminal import TextBlocks, show
from offramp.units import counted, duration

if TYPE_CHECKING:
    from rich.status import Status

    from offramp.engine.fit import EpochReport
    from offramp.study.plan.plan import Plan
    from offramp.study.run.events import Event
    from offramp.study.search import SearchEvent
    from offramp.study.variants import Best, SearchOptions

PACE = 10.0  # seconds between two epochs in a log, of all phases at work together
BAR = 24  # columns
MOST_SHOWN = 12  # groups at work, a line each


@final
@dataclass(frozen=True)
class Display:
    """Shows the work of a job on a log and, where it moves, in lines that move.

    Attributes:
        log: Where its lines go.
        command: Whether a command shows it. A function of Python warns of what is odd, and raises where
            it is interrupted.
        quiet: Whether no part of the answer is shown before the rest.
        as_json: Whether the answer is for programs, which have failures in it.
    """

    log: Log
    command: bool = False
    quiet: bool = False
    as_json: bool = False

    def say(self, text: str, must: bool = False) -> None:
        self.log.say(text, must)

    def note(self, text: str) -> None:
        if self.command:
            self.log.say(f"Note: {text}")
        else:
            warn([text])

    def fail(self, text: str) -> None:
        self.log.say(text, must=self.command and not self.as_json)

    def show(self, document: TextBlocks) -> bool:
        shows = self.command and not (self.quiet or self.as_json)
        if shows:
            show(document)
        return shows

    def reading(self, status: Status | None = None) -> AbstractContextManager[None]:
        return reading_shown(self.log, status) if self.command or self.log.moves else nullcontext()

    def train(self, plan: Plan, events: Generator[Event, None, None]) -> RunState:
        progress = Progress(plan, self.log)
        try:
            watch(events, progress)
        except KeyboardInterrupt as error:
            if not self.command:
                raise
            progress.state.interrupted = error
        return progress.state

    def search(self, request: SearchOptions, happenings: Generator[SearchEvent, None, Best]) -> Best:
        proposals = Proposals(request, self.log)
        with terminable(), moving("preparing", self.log) as status, self.reading(status):
            return finished(happenings, lambda happening: proposals.see(happening, status))


@final
class LogPacer:
    """When waiting is worth a line: after `PACE` seconds of it, then each time after as long again."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Something happens again."""
        self._since: float | None = None
        self._until = PACE

    def ends(self) -> bool:
        """Whether a line is due; to be called whenever there is nothing but waiting."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        waited = now - self._since
        if waited < self._until:
            return False
        self._until = 2 * waited
        return True


@final
class Progress:
    """The display of a run, on a log and, where standard error is a terminal, as lines that move.

    In a log a phase has a line when it begins and one when it is finished, and epochs between them at a
    pace that does not depend on how many phases are at work.
    """

    def __init__(self, plan: Plan, log: Log) -> None:
        self.state = RunState(plan)
        self._log = log
        self._now = ["preparing", ""]  # what the moving lines say
        self._notes: set[str] = set()
        self._patience = LogPacer()
        self._lines: dict[str, float] = {}  # when each phase last had a line
        self._news: dict[str, None] = {}  # phases with an epoch since, in order
        self._latest_line = time.monotonic()  # of a phase that began, or of an epoch
        self._at: dict[str, list[str]] = {}  # by the first key of a group at work on a cluster
        self._live = Live(
            console=log.console, refresh_per_second=4, transient=True, get_renderable=self._screen
        )

    def __enter__(self) -> Progress:
        if self._log.shown and self._log.moves:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        self._draw()

    def see(self, event: Event) -> None:
        """Take in one event and show it."""
        from offramp.study.run import events

        self.state.see(event)
        if not isinstance(event, events.Waiting | events.Note):
            self._patience.restart()
        match event:
            case events.GroupStarted(keys, epoch, where):
                self._begin(keys, epoch, where)
            case events.Epoch(report):
                self._epoch(report)
            case events.GroupEnded(keys):
                self._at = {key: at for key, at in self._at.items() if key not in keys}
                self._news = dict.fromkeys(k for k in self._news if k not in keys)
            case events.Room(groups, machines):
                text = f"room for {groups} at once, on {counted(machines, 'machine')}"
                fields = {"groups": groups, "machines": machines}
                self._log.write(Line(text, "room", fields, brief=""))
            case events.Finished(key, seconds):
                self._finish(key, seconds)
            case events.Failed(key, reason):
                self._news.pop(key, None)
                text = f"failed: {self.state.describe(key)}: {reason}"
                self._log.write(Line(text, "failed", {**self.state.named(key), "reason": reason}))
            case events.Waiting() if not self.state.at_work:  # else the run goes on
                self._now = [str(event), ""]
                if self._patience.ends():
                    self._log.write(Line(str(event), "waiting", {"holder": event.whom}))
            case events.Note(text) if text not in self._notes:
                self._notes.add(text)
                self._log.say(text, must=True)
        self._draw()

    def _draw(self) -> None:
        if self._log.frame is not None:
            self._log.frame(self._lines_now())

    def _begin(self, keys: Sequence[str], epoch: int, where: str) -> None:
        name = self.state.describe(keys[0])
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        place = f"{where} · {name}{more}" if where else f"{name}{more}"
        self._now = [name, f"epoch {epoch + 1}"]
        if where:
            self._at[keys[0]] = [place, self._now[1]]
        self._latest_line = time.monotonic()
        self._lines |= dict.fromkeys(keys, self._latest_line)
        fields = {"epoch": epoch, "epochs": self.state.epochs(keys[0]), "where": where or None}
        again = f", from epoch {epoch + 1} on" if epoch else ""
        about = {**self.state.named(keys[0]), **fields, "nodes": list(keys)}
        self._log.write(Line(f"{place}: begins{again}", "began", about, brief=""))

    def _epoch(self, report: EpochReport) -> None:
        key, epochs = report.key, self.state.epochs(report.key)
        self._now = [self.state.describe(key), report.line(epochs)]
        if key in self._at:
            self._at[key][1] = self._now[1]
        self._news[key] = None
        if report.epoch == epochs and not self._log.verbose:  # the line of the finished phase has it
            self._news.pop(key, None)
        if self._log.logs:
            self._log_news()

    def _log_news(self) -> None:
        """Log an epoch, at one pace for all phases: the last of the one whose line is the oldest."""
        now = time.monotonic()
        if not self._news or (now - self._latest_line < PACE and not self._log.verbose):
            return
        key = min(self._news, key=lambda key: self._lines.get(key, 0.0))
        self._lines[key] = self._latest_line = now
        self._news.pop(key, None)
        report, epochs, far = self.state.latest[key], self.state.epochs(key), self._far()
        words = [self.state.describe(key), report.line(epochs), duration(report.seconds)]
        fields = {
            **self.state.named(key),
            **epoch_fields(report, epochs),
            "seconds": report.seconds,
            **far[1],
        }
        self._log.write(Line(" · ".join([*words, *far[0]]), "epoch", fields, brief=""))

    def _finish(self, key: str, seconds: float) -> None:
        """With the last epoch's numbers in a log."""
        self._news.pop(key, None)
        name, took = f"[{self.state.phases}] {self.state.describe(key)}", duration(seconds)
        report, epochs, far = self.state.latest.get(key), self.state.epochs(key), self._far()
        last = [] if report is None else [report.line(epochs)]
        fields = {} if report is None else epoch_fields(report, epochs)
        text = " · ".join([name, *last, took, *far[0]])
        fields = {**self.state.named(key), **fields, "seconds": seconds, **far[1]}
        self._log.write(Line(text, "finished", fields, brief=f"{name} · {took}"))

    def _far(self) -> tuple[list[str], dict[str, Any]]:
        """How far the run is, in words and for programs."""
        share, left = self.state.share, self.state.seconds_left
        words = [f"{100 * share:.0f} % done"]
        if left is not None and share < 1:
            words.append(f"{duration(left)} left")
        return words, {"share_done": share, "seconds_left": left}

    def _screen(self) -> Group:
        """The moving lines; asked for several times a second."""
        return Group(*map(Text, self._lines_now()))

    def _lines_now(self) -> list[str]:
        seconds, share = self.state.seconds_left, self.state.share
        left = "time left: ?" if seconds is None else f"{duration(seconds)} left"
        full = int(BAR * share)
        bar = f"{'━' * full}{'╌' * (BAR - full)} {100 * share:.0f} % · {left}"
        at = [" · ".join(each) for each in list(self._at.values())]
        more = [f"and {len(at) - MOST_SHOWN} more groups"] if len(at) > MOST_SHOWN else []
        now = [*at[:MOST_SHOWN], *more] if self._at else self._now
        lines = [f"{bar} · {self.state.phases} phases", *now]
        return [printable(line) for line in lines if line]


def epoch_fields(report: EpochReport, epochs: int | None = None) -> dict[str, Any]:
    """The numbers of an epoch, for programs."""
    return {
        "epoch": report.epoch,
        "epochs": epochs,
        "loss": report.loss,
        "validation_loss": report.validation_loss,
        "accuracy": {str(exit): value for exit, value in report.accuracy.items()},
        "validation_accuracy": {str(exit): value for exit, value in report.validation_accuracy.items()},
    }


def watch(events: Generator[Event, None, None], progress: Progress) -> None:
    """Run to the end, or until interrupted, and show it."""
    with terminable(), closing(events), progress:
        for event in events:
            progress.see(event)


@final
class Proposals:
    """The display of a search, on a log and, where standard error is a terminal, as a moving line."""

    def __init__(self, request: SearchOptions, log: Log) -> None:
        self._request = request
        self._log = log
        self._prefix = "" if request.label is None else f"{request.label} · "
        self._now = ""  # the proposal at work
        self._about: dict[str, Any] = {}  # that proposal, for programs
        self._latest_line = time.monotonic()  # when an epoch or the end of a proposal had a line
        self._patience = LogPacer()
        self._notes: set[str] = set()

    def see(self, event: SearchEvent, status: Status) -> None:
        """Take in what happened and show it."""
        from offramp.study.run import events
        from offramp.study.search import Proposed, Scored

        if not isinstance(event, events.Waiting | events.Note):
            self._patience.restart()
        match event:
            case Proposed(number, chosen):
                self._now = self._name(number, chosen)
                self._about = {
                    "strategy": self._request.label,
                    "number": number,
                    "settings": dict(chosen),
                }
                status.update(self._now)
            case events.GroupStarted():
                status.update(self._now)  # it may say how far reading is, or for whom it waited
            case events.Epoch(report):
                text = f"{self._now} · {report.line()}"
                status.update(text)
                if self._log.verbose or time.monotonic() - self._latest_line >= PACE:
                    self._latest_line = time.monotonic()
                    fields = {**self._about, **epoch_fields(report), "seconds": report.seconds}
                    self._log.write(Line(text, "epoch", fields, brief=""))
            case Scored(number, chosen, value, why, best):
                end = f"given up, {why}" if value is None else f"validation {100 * value:.2f} %"
                so_far = "" if best is None else f" (best {100 * best:.2f} %)"
                fields = {**self._about, "validation": value, "why": why or None, "best": best}
                self._latest_line = time.monotonic()
                self._log.write(Line(f"{self._name(number, chosen)}: {end}{so_far}", "proposal", fields))
            case events.Waiting():
                text = f"{self._now} · {event}"
                status.update(text)
                if self._patience.ends():
                    fields = {**self._about, "holder": event.whom}
                    self._log.write(Line(text, "waiting", fields, brief=""))
            case events.Note(text) if text not in self._notes:
                self._notes.add(text)
                self._log.say(text, must=True)

    def _name(self, number: int, chosen: Mapping[str, Any]) -> str:
        trials = len(self._request.grid) or self._request.trials
        return f"{self._prefix}proposal {number} of {trials}: {setting_words(chosen)}"
