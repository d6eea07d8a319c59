"""The trackers by name. A new one is a file with a function from an address to a Tracker, and a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

from offramp.errors import OfframpError, nearest
from offramp.track.send import Tracker


@dataclass(frozen=True)
class TrackerKind:
    """of: `file:function` beside this file.  needs: the library.  address: what stands behind the colon,
    and an example."""

    of: str
    needs: str
    address: str
    example: str


TRACKERS: Mapping[str, TrackerKind] = MappingProxyType(
    {
        "tensorboard": TrackerKind(
            "tensorboard:tensorboard", "tensorboard", "a folder", "tensorboard:runs/board"
        ),
        "mlflow": TrackerKind(
            "mlflow:mlflow",
            "mlflow-skinny",
            "a server or database, and after # an experiment",
            "mlflow:http://localhost:5000#digits",
        ),
        "wandb": TrackerKind(
            "wandb:wandb", "wandb", "a project, perhaps ENTITY/PROJECT", "wandb:my-project"
        ),
        "trackio": TrackerKind("wandb:trackio", "trackio", "a project", "trackio:my-project"),
    }
)


def tracker(text: str) -> Tracker:
    """The tracker that `KIND:ADDRESS` names. Raises OfframpError for an unknown kind, and for a tracker
    that is not installed or cannot be reached."""
    name, _, address = text.partition(":")
    if name not in TRACKERS or not address:
        hint = nearest(name, TRACKERS) if name not in TRACKERS else f"; give {TRACKERS[name].address}"
        raise OfframpError(f"'{text}' names no tracker{hint}, such as tensorboard:runs/board")
    kind = TRACKERS[name]
    file, function = kind.of.split(":")
    try:
        make: Callable[[str], Tracker] = getattr(import_module(f"offramp.track.{file}"), function)
        return make(address)
    except ImportError as error:
        raise OfframpError(f"{name} is not installed ({error}); pip install {kind.needs}") from None
