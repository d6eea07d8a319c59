"""What a search shows while it works: the proposal at work, and a line for each that is over."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from offramp.api.progress.display import PACE, LogPacer, epoch_fields
from offramp.api.progress.log import Line, Log
from offramp.api.train.search import setting_words

if TYPE_CHECKING:
    from rich.status import Status

    from offramp.study.search import SearchEvent
    from offramp.study.variants import SearchOptions


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
                self._log.write(Line(f"{self._name(number, chosen)}: {end}{so_far}", "trial", fields))
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
        return f"{self._prefix}trial {number} of {self._request.trials}: {setting_words(chosen)}"
