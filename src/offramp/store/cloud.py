"""The files of a store in an object store: `place.FileSystem` says what each method does. No torch.

The names are those of a folder, but what a manifest names lies apart, with its SHA-256 behind its name:
`nodes/KEY/node.json` and `blobs/nodes/KEY/weights.safetensors.6e34…`. So a listing of nodes is one of
manifests alone; two writers never write over each other; and a manifest names the bytes that it was
made for. No folder is ever renamed: its blobs come first and its manifest last, by one conditional
create, and it is there once its manifest is. A blob that no manifest names, a writer left that died.

An index of a kind of folder, `index/nodes.json.gz`, is a copy of its manifests in one object, each with
the version that it was made of. Whoever has fetched none reads it in place of thousands. A listing says
which versions there are, so one that is stale costs requests and no more, and nobody needs one.

What was listed is believed where it says that something is there, for LISTED_S seconds or until this
process takes a lock or writes; that something is not there is asked anew each time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import re
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from offramp import units
from offramp.files import ARRAYS, RECORDS, home
from offramp.hashing import from_text
from offramp.store.locks import Lease, Locks
from offramp.store.place import Url
from offramp.store.remote import Info, LockObjects, Remote, loose_beats
from offramp.store.sealed import Damaged

LOCKS, BLOBS, INDEX = "locks", "blobs", "index"
OF_FOLDERS = ("nodes", "trials", "work")  # what lies in them are folders, elsewhere files
SEALED = ("nodes", "trials")
BLOB = re.compile(r"(?P<file>.+)\.(?P<sha256>[0-9a-f]{64})")
LISTED_S = 300.0  # what others remove meanwhile is missed as late as this
AHEAD = 256  # manifests that are fetched at a time, where one after another is read
MANY = 64  # manifests that are not at hand, from which on an index is asked for
UNREADABLE = (OSError, EOFError, zlib.error, ValueError, TypeError, AttributeError)
INDEX_ROOM = 64 * 2**20  # bytes of an index, unpacked, beside twice those of the manifests there

CACHE_SIZE = "10GB"
TRIMMED = 0.9  # of the limit, when it was passed: not each file has all others listed
UNSEEN = 0.02  # of the limit that a process adds before it looks what others have added

PathParts = tuple[str, ...]
ManifestIndex = dict[
    str, tuple[str, int, bytes]
]  # by folder: tag and size of a manifest, and the manifest

log = logging.getLogger(__name__)


@dataclass
class Listing:
    """What was seen in a folder, and when, on this process's clock."""

    at: float
    files: dict[str, Info] = field(default_factory=dict)


class Cloud:
    """Below an address."""

    def __init__(self, url: Url) -> None:
        self._remote = Remote(url)
        self._lock_files = LockObjects(self._remote, LOCKS)
        self._locks = Locks(self._lock_files)
        self.holder, self.watch_locks = self._locks.holder, self._locks.watch
        self._cache = user_cache()
        self._seen: dict[PathParts, Listing] = {}
        self._order: dict[str, list[PathParts]] = {}  # manifests of a folder that was listed
        self._blobs_listed: set[str] = set()
        self._indexes: dict[str, ManifestIndex] = {}  # as far as they were needed
        self._clock: float | None = None  # the server's, less this process's

    def path(self, *name: str) -> Url:
        return self._remote.url.joinpath(*name)

    # What is there

    def exists(self, *name: str) -> bool:
        if not self._is_listed(name):
            if len(name) == 1 and "." not in name[0]:
                return name[0] in self._remote.children()
            self._look(name)
        return self._is_listed(name)

    def is_folder(self, *name: str) -> bool:
        return len(name) == 2 and name[0] in OF_FOLDERS and self.exists(*name)

    def names(self, *folder: str) -> list[str]:
        listing, depth = self._remote.below(*folder), len(folder)
        self._learn(listing)
        self._order[folder[0]] = [name for name in listing if _is_manifest(name)]
        self._blobs_listed.discard(folder[0])
        return sorted({name[depth] for name in listing if len(name) > depth})

    def length(self, *name: str) -> int | None:
        info = self._info(name)
        return None if info is None else info.size

    def size(self, *name: str) -> int:
        return sum(info.size for info in self._infos(name))

    def age_s(self, *name: str) -> float:
        """On the server's clock alone: the newest file of a lock, such as that of the gate, tells what
        time it is there."""
        if self._clock is None:
            locks = self._remote.below(LOCKS).values()
            now = max((info.modified for info in locks if info.modified is not None), default=0.0)
            self._clock = now - time.monotonic()
        times = [info.modified for info in self._infos(name) if info.modified is not None]
        return self._clock + time.monotonic() - max(times) if times else 0.0

    def _infos(self, name: PathParts) -> list[Info]:
        """Of the object of a name, or of all below it."""
        if name and not self.is_folder(*name) and (info := self._info(name)) is not None:
            return [info]
        infos = list(self._remote.below(*name).values())
        if len(name) == 2 and name[0] in SEALED:
            infos += self._remote.below(BLOBS, *name).values()
        return infos

    # Reading

    def sealed(self, sha256: str, *name: str) -> PathParts:
        return BLOBS, *name[:-1], f"{name[-1]}.{sha256}"

    def read(self, *name: str) -> bytes:
        blob, info = BLOB.fullmatch(name[-1]), self._listed(name)
        if info is not None and info.size > (RECORDS if name[-1].endswith(".json") else ARRAYS):
            raise Damaged(self.path(*name), f"has {units.size(info.size)}, more than is read")
        if blob is not None and name[0] == BLOBS:
            data = self._read_blob(blob["sha256"], name)
        elif _is_manifest(name):
            data = self._read_manifest(name)
        else:
            data = self._remote.get(*name)
        if data is None:
            self._forget(name)
            raise Damaged(self.path(*name), "is missing")
        return data

    def _read_blob(self, sha256: str, name: PathParts) -> bytes | None:
        """What the store holds, whether it is what it should be or not; only what is, is cached here."""
        data = self._cache.get(sha256)
        if data is not None:
            return data
        data = self._remote.get(*name)
        if data is not None and hashlib.sha256(data).hexdigest() == sha256:
            self._cache.put(sha256, data)
        return data

    def _read_manifest(self, name: PathParts) -> bytes | None:
        info = self._info(name)
        if info is None:
            return None
        if not info.tag:
            return self._remote.get(*name)
        manifest = self._at_hand(name, info)
        if manifest is not None:
            return manifest
        ahead = [name, *self._ahead(name)]
        if len(ahead) >= MANY and name[0] not in self._indexes:
            self._indexes[name[0]] = self._read_index(name[0])
            return self._read_manifest(name)
        for other, data in zip(ahead, self._remote.get_many(ahead), strict=True):
            info = self._info(other)
            if data is not None and info is not None and len(data) == info.size:
                self._cache.put(self._version(other, info), data)
            if other == name:
                manifest = data
        return self._remote.get(*name) if manifest is None else manifest

    def _ahead(self, name: PathParts) -> list[PathParts]:
        """Manifests that are likely to be read next, and are not at hand: those listed behind it."""
        order = self._order.get(name[0], [])
        behind = order[order.index(name) + 1 :][:AHEAD] if name in order else []
        listed = [(other, self._info(other)) for other in behind if self._is_listed(other)]
        return [other for other, info in listed if info and self._at_hand(other, info) is None]

    def _at_hand(self, name: PathParts, info: Info) -> bytes | None:
        """A manifest of the version that was listed, where it need not be fetched."""
        tag, size, data = self._indexes.get(name[0], {}).get(name[1], ("", 0, b""))
        return (
            data if (tag, size) == (info.tag, info.size) else self._cache.get(self._version(name, info))
        )

    def _read_index(self, kind: str) -> ManifestIndex:
        """What an index holds, whether it is still so or not; nothing of one that cannot be read."""
        name = (INDEX, f"{kind}.json.gz")
        info = self._remote.info(*name)
        if info is None:
            return {}
        data = self._cache.get(self._version(name, info))
        if data is None:
            data = self._remote.get(*name) or b""
            self._cache.put(self._version(name, info), data)
        room = INDEX_ROOM + 2 * sum(i.size for n in self._order.get(kind, ()) if (i := self._info(n)))
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                text = packed.read(room + 1)
            if len(text) > room:
                raise ValueError("it is larger than all manifests")
            entries = from_text(text).items()
            return {key: (tag, size, text.encode()) for key, (tag, size, text) in entries}
        except UNREADABLE as error:
            log.warning(
                "%s cannot be read (%s), so each manifest is fetched; `offramp store index` mends it",
                *(self.path(*name), error),
            )
            return {}

    def index(self, least: int = 1) -> int:
        """Write each index that lacks at least so many manifests; how many manifests those hold."""
        count = 0
        for kind in SEALED:
            self.names(kind)
            index = self._indexes[kind] = self._read_index(kind)
            listed = {name: info for name in self._order[kind] if (info := self._info(name)) is not None}
            lacking = [n for n, i in listed.items() if index.get(n[1], ("", 0))[:2] != (i.tag, i.size)]
            if len(lacking) < least:
                continue
            entries = {}
            for name, info in listed.items():
                data = self._read_manifest(name)
                if data is not None and info.tag and len(data) == info.size and data.isascii():
                    entries[name[1]] = (info.tag, info.size, data.decode())
            text = json.dumps(entries).encode()
            self._remote.put(gzip.compress(text, 6, mtime=0), INDEX, f"{kind}.json.gz")
            del self._indexes[kind]
            count += len(entries)
        return count

    def _version(self, name: PathParts, info: Info) -> str:
        return f"{self.path(*name)} {info.tag} {info.size}"

    # Writing

    def write(self, data: bytes, *name: str) -> None:
        self._remote.put(data, *name)
        self._forget(name)

    def write_folder(self, files: Mapping[str, bytes], *name: str, over: bool) -> bool:
        *blobs, manifest = files
        for file in blobs:
            sha256 = hashlib.sha256(files[file]).hexdigest()
            # Also where it is there: one that a dead writer left an hour ago is about to be removed.
            self._remote.put(files[file], *self.sealed(sha256, *name, file))
            self._cache.put(sha256, files[file])
        written = True
        if over:
            self._remote.put(files[manifest], *name, manifest)
        else:
            written = self._remote.make(files[manifest], *name, manifest)
        self._forget((*name, manifest))
        return written

    def remove(self, *name: str) -> None:
        if len(name) == 2 and name[0] in OF_FOLDERS:
            # The manifest first: with it all is gone.
            for each in (*self._remote.below(*name), *self._remote.below(BLOBS, *name)):
                self._remote.remove(*each)
        else:
            self._remote.remove(*name)
        self._forget(name)

    def leftovers(self, *folder: str) -> list[PathParts]:
        if folder:
            return []  # an object is whole or not there
        unnamed: list[PathParts] = []
        for kind in SEALED:
            blobs = self._remote.below(BLOBS, kind)
            self.names(kind)
            manifests = {name[:2]: name for name in self._order[kind]}
            for folder, some in groupby(blobs, key=lambda name: name[1:3]):
                manifest = manifests.get(folder)
                named = set() if manifest is None else self._blobs_of(manifest)
                unnamed += [name for name in some if named is not None and name[-1] not in named]
        return unnamed

    def _blobs_of(self, manifest: PathParts) -> set[str] | None:
        """Names of the blobs that a manifest names; None of a damaged one, of which nothing follows."""
        try:
            sums = from_text(self.read(*manifest))["files"]
            return {f"{file}.{sum_['sha256']}" for file, sum_ in sums.items()}
        except (Damaged, ValueError, TypeError, LookupError, AttributeError):
            return None

    # Locks

    def lock(self, name: str) -> Lease:
        lease = self._locks.take(name)
        self._forget_all()
        return lease

    def try_lock(self, name: str) -> Lease | None:
        lease = self._locks.try_take(name)
        if lease is not None:
            self._forget_all()
        return lease

    @contextmanager
    def gate(self) -> Iterator[Lease]:
        with self._locks.gate() as lease:
            self._forget_all()
            yield lease

    def locks(self) -> tuple[set[str], list[PathParts]]:
        live, free = self._locks.survey()
        loose = loose_beats(self._lock_files.names())
        return live, [(LOCKS, file) for file in (*free, *loose)]

    # What was listed

    def _look(self, name: PathParts) -> None:
        if len(name) == 1 or (len(name) == 2 and name[0] not in OF_FOLDERS):
            info = self._remote.info(*name)
            self._learn({} if info is None else {name: info})
        elif name[0] == BLOBS:  # of all, where all manifests were listed
            all_ = name[1] in self._order and name[1] not in self._blobs_listed
            self._blobs_listed |= {name[1]} if all_ else set()
            self._learn(self._remote.below(*(name[:2] if all_ else name[:3])))
        else:
            self._learn(self._remote.below(*name[:2]))

    def _learn(self, infos: Mapping[PathParts, Info]) -> None:
        learned: dict[PathParts, Listing] = {}
        for name, info in infos.items():
            learned.setdefault(name[:-1], Listing(time.monotonic())).files[name[-1]] = info
        self._seen |= learned

    def _info(self, name: PathParts) -> Info | None:
        """Of what was listed, or is when it is looked for now."""
        if (info := self._listed(name)) is None:
            self._look(name)
            info = self._listed(name)
        return info

    def _listed(self, name: PathParts) -> Info | None:
        listing = self._fresh(name[:-1])
        return None if listing is None else listing.files.get(name[-1])

    def _fresh(self, folder: PathParts) -> Listing | None:
        listing = self._seen.get(folder)
        return None if listing is None or time.monotonic() - listing.at > LISTED_S else listing

    def _is_listed(self, name: PathParts) -> bool:
        return self._listed(name) is not None or self._fresh(name) is not None

    def _forget(self, name: PathParts) -> None:
        for folder in (name[:-1], name, (BLOBS, *name[:2])):
            self._seen.pop(folder, None)

    def _forget_all(self) -> None:
        self._seen = {name: listing for name, listing in self._seen.items() if not name}
        self._order.clear()
        self._blobs_listed.clear()
        self._clock = None


def _is_manifest(name: PathParts) -> bool:
    return len(name) == 3 and name[0] in SEALED


class LocalCache:
    """A bounded folder of this machine that keeps what was fetched, by name.

    Each file begins with the SHA-256 of the rest, so what was damaged here is fetched again. Nothing
    that happens to it is an error: whoever cannot have it fetches.

    Attributes:
        limit: bytes, of all processes together; 0 keeps nothing.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._left = 0.0  # bytes to add before the next look

    def get(self, name: str) -> bytes | None:
        """What was kept under a name; None where it is not there, or not as it was."""
        path = self._path(name)
        try:
            whole = path.read_bytes()
        except OSError:
            return None
        data = whole[64:]
        if hashlib.sha256(data).hexdigest().encode() != whole[:64]:
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)  # what was read last goes last
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep it, and let go what was not read for longest if there is too much."""
        if len(data) > TRIMMED * self._limit:
            return
        path = self._path(name)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary.write_bytes(hashlib.sha256(data).hexdigest().encode() + data)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            return
        self._left -= len(data)
        if self._left < 0:
            self._left = min(UNSEEN * self._limit, self._limit - self._trimmed())

    def _trimmed(self) -> int:
        """Bytes of all that is there, once there is not too much."""
        files = sorted(self._files())
        size = sum(size for _, size, _ in files)
        if size <= self._limit:
            return size
        for _, bytes_, path in files:
            if size <= TRIMMED * self._limit:
                break
            with suppress(OSError):
                path.unlink()
            size -= bytes_
        return size

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each was last read, its bytes and path."""
        files = []
        with suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    about = entry.stat(follow_symlinks=False)
                    files.append((about.st_mtime, about.st_size, Path(entry.path)))
        return files

    def _path(self, name: str) -> Path:
        return self._folder / hashlib.sha256(name.encode()).hexdigest()


def user_cache() -> LocalCache:
    """The user's: below OFFRAMP_CACHE, else XDG_CACHE_HOME or ~/.cache; OFFRAMP_CACHE_SIZE of it.

    Raises OfframpError where OFFRAMP_CACHE_SIZE is no size.
    """
    named = os.environ.get("OFFRAMP_CACHE")
    folder = Path(named) if named else home("XDG_CACHE_HOME", ".cache")
    size = os.environ.get("OFFRAMP_CACHE_SIZE", CACHE_SIZE)
    return LocalCache(folder / "store", int(units.parse(size, units.SIZE, "OFFRAMP_CACHE_SIZE")))
