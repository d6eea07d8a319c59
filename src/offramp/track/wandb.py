"""Weights & Biases and trackio, by what they have in common: init, log, finish."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from offramp.errors import OfframpError, in_line
from offramp.hashing import digest
from offramp.store.live import TrialProgress
from offramp.track.send import SentLog, TrialUpdate, settings

LOGS = Path("offramp-track")  # what was sent, a file for each trial, where this runs


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
    """A project of either library."""

    kind: str  # the library's name
    name: str  # the project's
    library: Any  # with `finish`, and `init`, which gives a run with `log`
    more: Mapping[str, Any]  # arguments of `init`
    # see `Tracker`. What W&B keeps offline has a folder each time a run is opened, and of one run's
    # folders its server keeps the numbers of one
    whole: bool = False

    def open(self, course: TrialProgress) -> SentLog:
        name = digest([self.name, dict(self.more), course.trial])[:16]
        write = partial(self._log, course.trial, settings(course))
        return SentLog.at(LOGS / f"{self.kind}-{name}.json", write)

    def _log(self, trial: str, config: Mapping[str, Any], update: TrialUpdate) -> None:
        """Raises OfframpError where the library cannot."""
        wandb = self.kind == "wandb"
        own = {"id": digest([trial])[:16]} if wandb else {}
        options = {"project": self.name, "name": trial, "config": dict(config), **own, **self.more}
        try:
            with redirect_stdout(sys.stderr):  # standard output is the command's
                run = self.library.init(**options)
                for epoch, numbers in update.curves:
                    run.log({**numbers, "epoch": epoch})
                if update.results is not None:
                    run.log(dict(update.results))
                self.library.finish(**({"exit_code": 1} if wandb and update.failed is not None else {}))
        except Exception as error:  # of the library, the network, its files: classes of many libraries
            hint = "`wandb login`, or set WANDB_MODE=offline" if wandb else "what it says, and try again"
            raise OfframpError(f"{self.kind} refuses ({in_line(error)}); see to {hint}") from error
