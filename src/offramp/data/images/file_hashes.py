"""Hashes of the files of a folder, kept between calls so that unchanged files are not read again.

They are in the user's cache folder (see `offramp.files.read_cached`). A file counts as unchanged while
its stamp stands still: size, time of change, inode, and when the system itself last noted a change,
which no user can set back.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from offramp.data.progress import LoggedProgress, pool
from offramp.errors import OfframpError
from offramp.files import TABLE, read_cached, user_cache, write_cached
from offramp.hashing import file_digest, text_digest
from offramp.units import size

Stamp = tuple[int, int, int, int]  # bytes, nanoseconds of mtime and of ctime, inode
Entry = tuple[Stamp, str]  # with the SHA-256 in hex

MOST_REHASHED = 256  # files that `changed` reads


def place(root: Path) -> Path:
    """The manifest of the folder `root`."""
    name = text_digest(str(root.resolve()))[:16]
    return user_cache() / "manifests" / f"{name}.json"


def digests(root: Path, ids: Sequence[str], fresh: bool = False) -> list[str]:
    """SHA-256, in hex, of the files `root/id`. fresh: read every one, whatever the manifest says.

    Raises:
        OfframpError: naming a file that cannot be read.
    """
    manifest = _entries(read_cached(place(root)))
    stamps = {name: _stamp(root / name) for name in ids}
    stale = [n for n, stamp in stamps.items() if fresh or n not in manifest or manifest[n][0] != stamp]
    if stale:
        hashes = LoggedProgress("hashing files", len(stale)).over(_hashed(root, stale))
        manifest |= {n: (stamps[n], sha) for n, sha in zip(stale, hashes, strict=True)}
        files = {name: [*stamp, sha] for name, (stamp, sha) in manifest.items()}
        write_cached(place(root), {"root": str(root.resolve()), "files": files})
    return [manifest[name][1] for name in ids]


def every_manifest() -> dict[Path, dict[str, str]]:
    """The hash of every file that any manifest knows, by resolved folder and id."""
    hashes = {}
    for path in sorted((user_cache() / "manifests").glob("*.json")):
        document = read_cached(path)
        if document is not None:
            entries = _entries(document)
            hashes[Path(document["root"])] = {name: sha for name, (_, sha) in entries.items()}
    return hashes


def refresh(root: Path, ids: Sequence[str], before: Mapping[str, str]) -> list[str]:
    """Hash every one of the files `root/id` anew; those whose hash is not that of `before`, by id.
    Raises OfframpError as `digests`."""
    hashes = zip(ids, digests(root, ids, fresh=True), strict=True)
    return [name for name, sha in hashes if before.get(name, sha) != sha]


def changed(root: Path, shas: Mapping[str, str], key: str) -> str | None:
    """One of the files `root/id` whose hash is no longer what it was; None where all are.

    Every file's stamp is looked at, and at most MOST_REHASHED files are read: first those whose stamp or
    hash is not the manifest's, then others. Nothing is written. shas: hashes as they were, by id; key:
    which of the others are read is a function of it.

    Raises:
        OfframpError: naming a file that cannot be read.
    """
    manifest = _entries(read_cached(place(root)))
    same = {name: manifest.get(name) == (_stamp(root / name), sha) for name, sha in shas.items()}
    chosen = sorted(shas, key=lambda n: (same[n], text_digest(f"{key} {n}")))[:MOST_REHASHED]
    hashes = zip(chosen, _hashed(root, chosen), strict=True)
    return next((name for name, sha in hashes if sha != shas[name]), None)


def _hashed(root: Path, names: Sequence[str]) -> Iterator[str]:
    def digest(name: str) -> str:
        try:
            return file_digest(root / name)
        except OSError as error:
            raise _unreadable(root / name, error) from error

    with pool(len(names)) as threads:
        yield from threads.map(digest, names)


def _stamp(path: Path) -> Stamp:
    try:
        state = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for
        raise OfframpError(f"{path} is no file; remove it")
    if state.st_size > TABLE:
        raise OfframpError(f"{path} has {size(state.st_size)}, which no image has; remove it")
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def _unreadable(path: Path, error: OSError) -> OfframpError:
    return OfframpError(f"{path} cannot be read ({error.strerror}); restore or remove it")


def _entries(document: Mapping[str, Any] | None) -> dict[str, Entry]:
    """What a manifest says of each file; nothing where there is no manifest."""
    return {
        name: ((size, mtime, ctime, inode), sha)
        for name, (size, mtime, ctime, inode, sha) in (document["files"] if document else {}).items()
    }
