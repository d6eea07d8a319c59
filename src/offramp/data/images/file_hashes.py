"""Hashes of the files of a folder, kept between calls so that unchanged files are not read again.

They are kept in the user's cache folder (see `cache`). A file counts as unchanged while its
stamp stands still: size, time of change, inode, and when the system itself last noted a change, which
no user can set back.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from offramp.data.images import cache
from offramp.data.progress import Pace, pool
from offramp.errors import OfframpError
from offramp.hashing import file_digest, text_digest

Stamp = tuple[int, int, int, int]  # bytes, nanoseconds of mtime and of ctime, inode
Entry = tuple[Stamp, str]  # with the SHA-256 in hex

MOST_REHASHED = 256  # files that `changed` reads


def place(root: Path) -> Path:
    """The manifest of the folder `root`."""
    name = text_digest(str(root.resolve()))[:16]
    return cache.folder() / "manifests" / f"{name}.json"


def digests(root: Path, ids: Sequence[str], fresh: bool = False) -> list[str]:
    """SHA-256, in hex, of the files `root/id`. fresh: read every one, whatever the manifest says.

    Raises OfframpError naming a file that cannot be read.
    """
    known = _read(place(root))
    stamps = {name: _stamp(root / name) for name in ids}
    wanted = [n for n, stamp in stamps.items() if fresh or n not in known or known[n][0] != stamp]
    if wanted:
        told = Pace("hashing files", len(wanted)).over(_hashed(root, wanted))
        known |= {n: (stamps[n], sha) for n, sha in zip(wanted, told, strict=True)}
        files = {name: [*stamp, sha] for name, (stamp, sha) in known.items()}
        cache.write(place(root), {"root": str(root.resolve()), "files": files})
    return [known[name][1] for name in ids]


def kept() -> dict[Path, dict[str, str]]:
    """The hash of every file that any manifest knows, by resolved folder and id."""
    found = {}
    for path in sorted((cache.folder() / "manifests").glob("*.json")):
        document = cache.read(path)
        if document is not None:
            found[Path(document["root"])] = {n: sha for n, (_, sha) in _entries(document).items()}
    return found


def refresh(root: Path, ids: Sequence[str], before: Mapping[str, str]) -> list[str]:
    """Hash every one of the files `root/id` anew; those whose hash is not that of `before`, by id.

    Raises OfframpError as `digests`.
    """
    found = digests(root, ids, fresh=True)
    return [name for name, sha in zip(ids, found, strict=True) if before.get(name, sha) != sha]


def changed(root: Path, shas: Mapping[str, str], key: str) -> str | None:
    """One of the files `root/id` whose hash is no longer that of `shas`, by id; None where all are.

    Every file's stamp is looked at, and at most MOST_REHASHED files are read: first those whose stamp
    or hash is not the manifest's, then others; which ones is a function of `key`. Nothing is written.

    Raises OfframpError naming a file that cannot be read.
    """
    known = _read(place(root))
    alike = {name: known.get(name) == (_stamp(root / name), sha) for name, sha in shas.items()}
    drawn = sorted(shas, key=lambda n: (alike[n], text_digest(f"{key} {n}")))
    chosen = drawn[:MOST_REHASHED]
    found = zip(chosen, _hashed(root, chosen), strict=True)
    return next((name for name, sha in found if sha != shas[name]), None)


def _hashed(root: Path, names: Sequence[str]) -> Iterator[str]:
    with pool(len(names)) as threads:
        yield from threads.map(lambda name: _digest(root / name), names)


def _stamp(path: Path) -> Stamp:
    try:
        state = path.stat()
    except OSError as error:
        raise OfframpError(f"{path} cannot be read ({error.strerror}); restore or remove it") from error
    if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for
        raise OfframpError(f"{path} is no file; remove it")
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise OfframpError(f"{path} cannot be read ({error.strerror}); restore or remove it") from error


def _read(path: Path) -> dict[str, Entry]:
    """What is kept; nothing when there is no manifest."""
    document = cache.read(path)
    return {} if document is None else _entries(document)


def _entries(document: Mapping[str, Any]) -> dict[str, Entry]:
    return {
        name: ((size, mtime, ctime, inode), sha)
        for name, (size, mtime, ctime, inode, sha) in document["files"].items()
    }
