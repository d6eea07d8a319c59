"""What a run tells whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass

from offramp.engine.fit import EpochReport


@dataclass(frozen=True)
class Reused:
    """A node was in the store already."""

    key: str


@dataclass(frozen=True)
class Began:
    """A group of nodes starts to train, `epoch` epochs after its beginning (more than 0: resumed)."""

    keys: tuple[str, ...]
    epoch: int


@dataclass(frozen=True)
class Epoch:
    report: EpochReport


@dataclass(frozen=True)
class Finished:
    """A node is in the store."""

    key: str
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A node cannot be had; what needs it is skipped."""

    key: str
    reason: str


@dataclass(frozen=True)
class Waiting:
    """Other processes are training what this one needs next. holder: one of them and for how long it has
    been, in words; None where nothing tells."""

    keys: tuple[str, ...]
    holder: str | None = None


@dataclass(frozen=True)
class Note:
    """Something to tell the user once."""

    text: str


@dataclass(frozen=True)
class TrialDone:
    """A trial is in the store; `reused` when it was there before."""

    trial: str
    reused: bool


Event = Reused | Began | Epoch | Finished | Failed | Waiting | Note | TrialDone
