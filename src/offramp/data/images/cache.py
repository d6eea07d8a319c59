"""What is known of data, kept in the user's cache folder: JSON documents under a seal.

The folder is `$XDG_CACHE_HOME/offramp`, by default `~/.cache/offramp`; nothing is kept among the data.
A document that is not what was sealed (see `offramp.hashing.with_seal`) is removed, with one warning.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from offramp.files import home, replacing
from offramp.hashing import is_sealed_text, text, with_seal

log = logging.getLogger(__name__)

VERSION = 2  # of the layout of every document


def folder() -> Path:
    """Where offramp keeps what it can make again."""
    return home("XDG_CACHE_HOME", ".cache")


def read(path: Path) -> dict[str, Any] | None:
    """The document that was written to `path`.

    Returns:
        None where there is none, or one of another layout. None too for one that is not what was sealed,
        or was sealed for another path: a line of the log (level WARNING) says so, and the file goes.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return None
    with suppress(ValueError):
        document = json.loads(data)
        if isinstance(document, dict):
            if document.get("version") != VERSION:
                return None
            if is_sealed_text(data, document) and document.get("name") == path.name:
                return document
    log.warning("%s does not match its seal; what it held is found out anew", path)
    with suppress(OSError):
        path.unlink()
    return None


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Seal a record and keep it. A cache that cannot be written costs time, no more."""
    with suppress(OSError), replacing(path) as temporary:
        temporary.write_bytes(text(with_seal({**record, "version": VERSION, "name": path.name})))
