"""Runs in the trackers that laboratories have open.

A store is read, while others train into it and after; no training loop knows of it, so no bit depends on
it. `send` says what goes where. A new tracker is a file with a function from an address to a `Tracker`,
and an entry of TRACKERS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from offramp.errors import OfframpError, nearest
from offramp.track.send import Tracker
from offramp.track.tensorboard import tensorboard
from offramp.track.wandb import trackio, wandb


def _mlflow(address: str) -> Tracker:
    from offramp.track.mlflow import mlflow  # imports the library, as the others do when they are called

    return mlflow(address)


@dataclass(frozen=True)
class TrackerKind:
    """A kind of tracker."""

    make: Callable[[str], Tracker]  # from its address; raises ImportError without its library
    needs: str  # the library
    address: str  # what stands behind the colon
    example: str  # of a whole address


_EXPERIMENT = "a server or database, and after # an experiment"
TRACKERS: Mapping[str, TrackerKind] = MappingProxyType(
    {
        "tensorboard": TrackerKind(tensorboard, "tensorboard", "a folder", "tensorboard:runs/board"),
        "mlflow": TrackerKind(
            _mlflow, "mlflow-skinny", _EXPERIMENT, "mlflow:http://localhost:5000#digits"
        ),
        "wandb": TrackerKind(wandb, "wandb", "a project, perhaps ENTITY/PROJECT", "wandb:my-project"),
        "trackio": TrackerKind(trackio, "trackio", "a project", "trackio:my-project"),
    }
)


def tracker(text: str) -> Tracker:
    """The tracker that `KIND:ADDRESS` names.

    Raises:
        OfframpError: the kind is unknown, or the tracker is not installed or cannot be reached.
    """
    name, _, address = text.partition(":")
    if name not in TRACKERS or not address:
        hint = nearest(name, TRACKERS) if name not in TRACKERS else f"; give {TRACKERS[name].address}"
        raise OfframpError(f"'{text}' names no tracker{hint}, such as tensorboard:runs/board")
    kind = TRACKERS[name]
    try:
        return kind.make(address)
    except ImportError as error:
        raise OfframpError(f"{name} is not installed ({error}); pip install {kind.needs}") from None
