"""Weights & Biases: a run for each trial, online or offline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import requests
import wandb

from offramp.files import write_whole
from offramp.hashing import digest
from offramp.track.send import TrialRun

SENT = Path("offramp-track")  # what was sent, a file a trial, where this runs: offline nobody knows
PATIENCE = 5.0  # seconds; W&B itself waits for a server that is not there for minutes


@dataclass(frozen=True)
class Project:
    address: str  # PROJECT, or ENTITY/PROJECT

    def has(self, trial: str) -> bool:
        return self._note(trial).exists()

    def send(self, run: TrialRun) -> None:
        entity, _, project = self.address.rpartition("/")
        with wandb.init(
            entity or None,
            project,
            name=run.trial,
            id=digest([run.trial])[:16],
            resume="allow",
            config=dict(run.settings),
        ) as opened:
            for epoch, numbers in run.curves.items():
                opened.log({**numbers, "epoch": epoch})
            opened.log(dict(run.results))
        write_whole(self._note(run.trial), run.trial)

    def _note(self, trial: str) -> Path:
        return SENT / f"wandb-{digest([self.address, trial])[:16]}"


def connect(address: str) -> Project:
    settings = wandb.setup().settings
    if settings.mode not in ("offline", "dryrun", "disabled"):
        requests.head(settings.base_url, timeout=PATIENCE)  # raises where nobody answers
    return Project(address)
