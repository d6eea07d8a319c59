"""Weights & Biases and trackio, by what they have in common: init, log, finish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from offramp.errors import OfframpError, in_line
from offramp.hashing import digest
from offramp.store.live import LivePhase, TrialProgress
from offramp.track.ledger import SentLog, ledger
from offramp.track.send import TrialUpdate, settings

LEDGERS = Path("offramp-track")  # what was sent, a file for each trial, where this runs


def wandb(address: str) -> Project:
    """A project, perhaps behind its entity: `ENTITY/PROJECT`. Offline where WANDB_MODE=offline, or
    after `wandb offline`."""
    entity, _, project = address.rpartition("/")
    own = {"entity": entity} if entity else {}
    library = import_module("wandb")
    offline = library.setup().settings.mode in ("offline", "dryrun")
    return Project("wandb", project, library, {**own, "resume": "allow"}, whole=offline)


def trackio(address: str) -> Project:
    """A project on this machine."""
    return Project("trackio", address, import_module("trackio"), {"resume": "allow"})


@dataclass(frozen=True)
class Project:
    """library: with `init`, which gives a run with `log` and `finish`.  more: arguments of `init`.
    whole: see `Tracker`. What W&B keeps offline has a folder each time a run is opened, and of one run's
    folders its server keeps the numbers of one."""

    kind: str
    name: str
    library: Any
    more: Mapping[str, Any]
    whole: bool = False

    def open(self, course: TrialProgress) -> Logged:
        name = digest([self.name, dict(self.more), course.trial])[:16]
        return Logged(self, course.trial, settings(course), ledger(LEDGERS / f"{self.kind}-{name}.json"))

    def log(self, trial: str, settings: Mapping[str, Any], news: TrialUpdate) -> None:
        """Raises OfframpError where the library cannot."""
        wandb = self.kind == "wandb"
        own = {"id": digest([trial])[:16]} if wandb else {}
        given = {"project": self.name, "name": trial, "config": dict(settings), **own, **self.more}
        try:
            run = self.library.init(**given)
            for line in _lines(news):
                run.log(line)
            run.finish(**({"exit_code": 1} if wandb and news.failed is not None else {}))
        except Exception as error:  # of the library, the network, its files: classes of many libraries
            hint = "`wandb login`, or set WANDB_MODE=offline" if wandb else "what it says, and try again"
            raise OfframpError(f"{self.kind} refuses ({in_line(error)}); see to {hint}") from error


def _lines(news: TrialUpdate) -> Iterator[dict[str, float]]:
    for phase, steps in news.phases:
        for epoch, numbers in steps.items():
            yield {**{f"{phase.title}/{name}": v for name, v in numbers.items()}, "epoch": epoch}
    if news.results is not None:
        yield dict(news.results)


@dataclass(frozen=True)
class Logged:
    project: Project
    trial: str
    settings: Mapping[str, Any]
    ledger: SentLog

    def closed(self) -> bool:
        return self.ledger.closed()

    def sent(self, phase: LivePhase) -> int:
        return self.ledger.sent(phase)

    def send(self, news: TrialUpdate) -> None:
        if self.ledger.is_news(news):
            self.project.log(self.trial, self.settings, news)
            self.ledger.remember(news)
