"""Weights & Biases and trackio, by what they have in common: init, log, finish."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from offramp.hashing import digest
from offramp.store.live import Course, LivePhase
from offramp.track.ledger import CLOSED, SentLog, ledger
from offramp.track.send import Steps, settings

LEDGERS = Path("offramp-track")  # what was sent, a file for each trial, where this runs


def wandb(address: str) -> Project:
    """A project, perhaps behind its entity: `ENTITY/PROJECT`. Offline where WANDB_MODE=offline."""
    entity, _, project = address.rpartition("/")
    own = {"entity": entity} if entity else {}
    return Project("wandb", project, import_module("wandb"), {**own, "resume": "allow"})


def trackio(address: str) -> Project:
    """A project on this machine."""
    return Project("trackio", address, import_module("trackio"), {"resume": "allow"})


@dataclass(frozen=True)
class Project:
    """library: with `init`, which gives a run with `log` and `finish`.  more: arguments of `init`."""

    kind: str
    name: str
    library: Any
    more: Mapping[str, Any]

    def open(self, course: Course) -> Logged:
        name = digest([self.name, dict(self.more), course.trial])[:16]
        return Logged(self, course.trial, settings(course), ledger(LEDGERS / f"{self.kind}-{name}.json"))

    def log(self, trial: str, settings: Mapping[str, Any], lines: Iterable[Mapping[str, float]]) -> None:
        own = {"id": digest([trial])[:16]} if self.kind == "wandb" else {}
        given = {"project": self.name, "name": trial, "config": dict(settings), **own, **self.more}
        run = self.library.init(**given)
        for line in lines:
            run.log(dict(line))
        run.finish()


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

    def send(self, phase: LivePhase, steps: Steps) -> None:
        lines = (
            {**{f"{phase.title}/{name}": v for name, v in numbers.items()}, "epoch": epoch}
            for epoch, numbers in steps.items()
        )
        self.project.log(self.trial, self.settings, lines)
        self.ledger.remember(phase.key, max(steps))

    def close(self, results: Mapping[str, float]) -> None:
        self.project.log(self.trial, self.settings, [results])
        self.ledger.remember(CLOSED)
