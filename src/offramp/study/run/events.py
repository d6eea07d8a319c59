"""What a run tells whoever watches it.

name, names: what phases are called, where whoever watches has said so (`called`); else a key stands for
each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import get_args

from pydantic import TypeAdapter

from offramp.engine.fit import EpochReport
from offramp.units import duration


@dataclass(frozen=True)
class Reused:
    """A node was in the store already."""

    key: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or self.key[:8]} is in the store"


@dataclass(frozen=True)
class GroupStarted:
    """A group of nodes starts to train, `epoch` epochs after its beginning (more than 0: resumed).
    where: the machine; empty for this one."""

    keys: tuple[str, ...]
    epoch: int
    where: str = ""
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = ", ".join(self.names or (key[:8] for key in self.keys))
        return f"{names} {'begins' if len(self.keys) == 1 else 'begin'}"


@dataclass(frozen=True)
class Epoch:
    """A node has trained an epoch."""

    report: EpochReport
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or self.report.key[:8]} · {self.report.line()}"


@dataclass(frozen=True)
class Finished:
    """A node is in the store."""

    key: str
    seconds: float
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or self.key[:8]} is finished, in {duration(self.seconds)}"


@dataclass(frozen=True)
class Failed:
    """A node cannot be had; what needs it is skipped."""

    key: str
    reason: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or self.key[:8]} failed: {self.reason}"


@dataclass(frozen=True)
class Waiting:
    """Other processes are training what this one needs next. holder: one of them and for how long it has
    been, in words; None where nothing tells."""

    keys: tuple[str, ...]
    holder: str | None = None

    @property
    def whom(self) -> str:
        """For whom, in words."""
        return self.holder or "another process on this store"

    def __str__(self) -> str:
        return f"waiting for {self.whom}"


@dataclass(frozen=True)
class Note:
    """Something to tell the user once."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class TrialDone:
    """A trial is in the store; `reused` when it was there before."""

    trial: str
    reused: bool

    def __str__(self) -> str:
        return f"{self.trial} is in the store"


@dataclass(frozen=True)
class Room:
    """A cluster has room for so many groups at a time by now, on so many machines."""

    groups: int
    machines: int


@dataclass(frozen=True)
class GroupEnded:
    """A group of nodes is no longer at work, finished or not."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class WorkerFailed:
    """A trainer could not do what its order says. again: whether it, or another, may after a while."""

    text: str
    again: bool


Event = (
    Reused
    | GroupStarted
    | Epoch
    | Finished
    | Failed
    | Waiting
    | Note
    | TrialDone
    | Room
    | GroupEnded
    | WorkerFailed
)
KINDS = {kind.__name__: TypeAdapter(kind) for kind in get_args(Event)}


def dumps(event: Event) -> str:
    """An event as a line of JSON, for another process."""
    return json.dumps([type(event).__name__, asdict(event)])


def loads(line: str) -> Event:
    """The event that `dumps` wrote. Raises ValueError, KeyError or TypeError for anything else."""
    name, fields = json.loads(line)
    event: Event = KINDS[name].validate_python(fields)
    return event


def called(event: Event, names: Mapping[str, str]) -> Event:
    """The event with what its phases are called. names: by key."""
    match event:
        case GroupStarted(keys):
            return replace(event, names=tuple(names.get(key, key[:8]) for key in keys))
        case Epoch(report):
            return replace(event, name=names.get(report.key, ""))
        case Reused(key) | Finished(key) | Failed(key):
            return replace(event, name=names.get(key, ""))
    return event
