"""With what a result was made: kept beside it, never part of a key."""

from __future__ import annotations

import functools
import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version

import torch

from offramp import device as devices
from offramp.escape import printable
from offramp.store.archive import LIBRARIES


def provenance(device: torch.device) -> dict[str, str | int | None]:
    """Library versions, the machine's name, its device and cores, time (UTC) and the git revision of the
    working folder."""
    return {
        **_versions(),
        "python": platform.python_version(),
        "machine": printable(socket.gethostname()),
        "device": devices.name(device),
        "cores": os.cpu_count(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": _revision(),
    }


@functools.cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


@functools.cache
def _revision() -> str | None:
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
