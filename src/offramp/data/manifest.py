"""Hashes of the files of a folder, kept between calls so that unchanged files are not read again.

They are kept in the user's cache folder (`$XDG_CACHE_HOME/offramp`, by default `~/.cache/offramp`),
never among the data. A file counts as unchanged while its size and time of change stand still.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from offramp.errors import OfframpError
from offramp.files import replacing
from offramp.hashing import file_digest

VERSION = 1

Entry = tuple[int, int, str]  # bytes, nanoseconds of the last change, SHA-256 in hex


def cache_folder() -> Path:
    """Where offramp keeps what it can make again."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if Path(given).is_absolute() else Path.home() / ".cache") / "offramp"


def place(root: Path) -> Path:
    """The manifest of the folder `root`."""
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return cache_folder() / "manifests" / f"{name}.json"


def digests(root: Path, ids: Sequence[str], fresh: bool = False) -> list[str]:
    """SHA-256, in hex, of the files `root/id`. fresh: read every one, whatever the manifest says.

    Raises OfframpError naming a file that cannot be read.
    """
    known = _read(place(root))
    stamps = {name: _stamp(root / name) for name in ids}
    wanted = [name for name, stamp in stamps.items() if fresh or known.get(name, ())[:2] != stamp]
    if wanted:
        with ThreadPoolExecutor(min(len(wanted), os.cpu_count() or 1, 16)) as pool:
            found = pool.map(lambda name: _digest(root / name), wanted)
            known |= {n: (*stamps[n], sha) for n, sha in zip(wanted, found, strict=True)}
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, no more
            _write(root, known)
    return [known[name][2] for name in ids]


def refresh(root: Path, ids: Sequence[str]) -> list[str]:
    """Hash every one of the files `root/id` anew; those whose content is another one than the manifest
    had, though their size and time of change stand still.

    Raises OfframpError as `digests`.
    """
    known = _read(place(root))
    found = digests(root, ids, fresh=True)
    kept = [(name, sha, known[name]) for name, sha in zip(ids, found, strict=True) if name in known]
    return [n for n, sha, (*stamp, was) in kept if sha != was and tuple(stamp) == _stamp(root / n)]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError as error:
        raise OfframpError(f"{path} cannot be read ({error.strerror}); restore or remove it") from error
    return state.st_size, state.st_mtime_ns


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise OfframpError(f"{path} cannot be read ({error.strerror}); restore or remove it") from error


def _read(path: Path) -> dict[str, Entry]:
    """What is kept; nothing when there is no manifest, or none that can be read."""
    try:
        kept = json.loads(path.read_bytes())
        if kept["version"] != VERSION:
            return {}
        return {
            str(k): (int(size), int(time), str(sha)) for k, (size, time, sha) in kept["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(root: Path, known: dict[str, Entry]) -> None:
    with replacing(place(root)) as temporary:
        temporary.write_text(
            json.dumps({"version": VERSION, "root": str(root.resolve()), "files": known})
        )
