"""Live progress of a run: one line that moves on a terminal, a line a phase elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from offramp.cli.render import duration
from offramp.engine.fit import EpochReport
from offramp.study.events import (
    Began,
    Epoch,
    Event,
    Failed,
    Finished,
    Note,
    Reused,
    TrialDone,
    Waiting,
)
from offramp.study.plan import Plan


class Progress:
    """What has happened so far, and the display of it."""

    def __init__(self, plan: Plan, live: bool) -> None:
        self.trials: dict[str, bool] = {}  # id → reused
        self.failed: dict[str, str] = {}
        self._plan = plan
        self._show = live
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(Text(""), console=self._console, refresh_per_second=4, transient=True)
        self._began = time.monotonic()
        self._reused: set[str] = set()
        self._trained: set[str] = set()
        self._share: dict[str, float] = {}  # of a node's epochs that are done
        self._skipped = 0.0  # work done by earlier runs, in MACs
        self._notes: set[str] = set()

    def __enter__(self) -> Progress:
        if self._show and self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def see(self, event: Event) -> None:
        """Take in one event and show it."""
        if isinstance(event, Reused):
            if event.key not in self._trained:
                self._reused.add(event.key)
                self._skipped += self._plan.macs(event.key) * (1 - self._share.get(event.key, 0.0))
                self._share[event.key] = 1.0
        elif isinstance(event, Began):
            for key in event.keys:
                share = event.epoch / self._plan.nodes[key].recipe.epochs
                self._skipped += self._plan.macs(key) * share
                self._share[key] = share
        elif isinstance(event, Epoch):
            node = self._plan.nodes[event.report.key]
            self._share[event.report.key] = event.report.epoch / node.recipe.epochs
            self._moving(self._line(event.report))
        elif isinstance(event, Finished):
            self._trained.add(event.key)
            self._share[event.key] = 1.0
            self._lasting(f"{self._describe(event.key)}  {duration(event.seconds)}")
        elif isinstance(event, Failed):
            self.failed[event.key] = event.reason
            self._lasting(f"{self._describe(event.key)}  failed: {event.reason}")
        elif isinstance(event, TrialDone):
            self.trials[event.trial] = event.reused and self.trials.get(event.trial, True)
        elif isinstance(event, Waiting):
            self._moving("waiting for another process on this store")
        elif isinstance(event, Note) and event.text not in self._notes:
            self._notes.add(event.text)
            self._console.print(event.text)

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
        if self.trials and all(self.trials.values()) and len(self.trials) == total:
            return f"All {total} trials were in the store {store} already; nothing was trained."
        return (
            f"{len(self.trials)} of {total} trials are in {store}: {len(self._trained)} nodes "
            f"trained, {len(self._reused)} reused, in {duration(time.monotonic() - self._began)}."
        )

    def _describe(self, key: str) -> str:
        node = self._plan.nodes[key]
        users = self._plan.users[key]
        more = f" +{len(set(users)) - 1}" if len(set(users)) > 1 else ""
        return f"seed {node.seed} · {users[0]}{more} · {node.name}"

    def _line(self, report: EpochReport) -> str:
        node = self._plan.nodes[report.key]
        exits = sorted(report.validation_accuracy)
        accuracy = " ".join(f"{100 * report.validation_accuracy[k]:.1f}" for k in exits)
        total = sum(self._plan.macs(key) for key in self._plan.nodes)
        done = sum(self._plan.macs(key) * share for key, share in self._share.items())
        spent = time.monotonic() - self._began
        fresh = done - self._skipped
        left = duration(spent * (total - done) / fresh) if fresh > 0 else "?"
        return (
            f"{self._describe(report.key)} · epoch {report.epoch}/{node.recipe.epochs} · "
            f"loss {report.loss:.3f} · validation {accuracy} % · {100 * done / total:.0f} % · "
            f"{left} left"
        )

    def _moving(self, text: str) -> None:
        if self._show and self._console.is_terminal:
            self._live.update(Text(text, overflow="ellipsis", no_wrap=True))

    def _lasting(self, text: str) -> None:
        if self._show:
            self._console.print(Text(text))
