"""With what a result was made: kept beside it, never part of a key."""

from __future__ import annotations

import functools
import os
import platform
import socket
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from offramp import device as devices
from offramp.escape import printable
from offramp.process import revision
from offramp.store.archive import LIBRARIES
from offramp.store.manifest import Provenance


def provenance(device: torch.device, began: float | None = None) -> Provenance:
    """Library versions, the machine's name, its device and cores, time (UTC) and the git revision of the
    working folder. began: when it was begun, where that is known, in seconds since 1970."""
    begun = {} if began is None else {"began": _time(datetime.fromtimestamp(began, UTC))}
    return Provenance(
        **_versions(),
        python=platform.python_version(),
        machine=printable(socket.gethostname()),
        device=devices.name(device),
        cores=os.cpu_count(),
        **begun,
        finished=_time(datetime.now(UTC)),
        git=_revision(),
    )


def _time(when: datetime) -> str:
    return when.isoformat(timespec="seconds")


@functools.cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


@functools.cache
def _revision() -> str | None:
    return revision(Path())
