"""Files of a data set that lie behind an address: fetched once, checked, unpacked, kept in the cache.

They come by HTTP or HTTPS. An archive is unpacked: plain files and folders alone, and none outside of
the folder that is theirs. What is half-fetched is never read, and what was fetched is not asked for
again: keys hold hashes of pixels, so that files which changed there or here make another study.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import http.client
import json
import lzma
import math
import os
import re
import shutil
import stat
import string
import tarfile
import time
import zipfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from offramp.data.images.files import SPLIT_FOLDERS
from offramp.data_spec import DataSpec
from offramp.errors import OfframpError, Unwritable, in_line
from offramp.escape import has_controls
from offramp.files import new_folder, user_cache, writing
from offramp.hashing import from_text

TRIES, PAUSE_S = 3, 2.0  # of a fetch; before the second one, and then twice as long
SILENCE_S = 60.0  # until a server that says nothing counts as away
BLOCK = 2**20
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
RECORD = "fetched.json"  # what is known of what was fetched; beside it, `files`
PASSING = (408, 425, 429)  # answers that another try may change, as those from 500 on
PACKED: Mapping[bytes, Callable[..., Any]] = {
    **{b"\x1f\x8b": gzip.open, b"BZh": bz2.open},
    **dict.fromkeys((b"\xfd7zXZ\0", b"]\0\0"), lzma.open),
}
"""What unpacks a file that begins so."""
HEADER = 2**20  # bytes of a member's header, its name included
DEEPEST = 64  # parts of a name: far below where a path ends, and Python's recursion


@dataclass(frozen=True)
class FetchedFiles:
    """What came from an address."""

    folder: Path  # where the files lie
    sha256: str  # of what came, before it was unpacked


def fetched(spec: DataSpec) -> FetchedFiles:
    """The files behind `spec.url`, which are fetched where they are not here yet.

    Raises:
        OfframpError: for an address that is none, bytes that are not `spec.sha256`, an archive that
            cannot be unpacked here.
        Unwritable: (an OfframpError) for a server that does not answer and a disk that is full.
    """
    url = _checked(spec)
    if (files := already_fetched(spec)) is not None:
        return files
    place = _place(spec)
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        with _alone(place):
            if already_fetched(spec) is None:  # by another process meanwhile
                with new_folder(place, place.parent / "staging") as folder:
                    _fetch(url, spec.sha256, folder)
    if (files := already_fetched(spec)) is None:
        raise OfframpError(f"{place} is not what was just fetched into it; run the same command again")
    return files


def already_fetched(spec: DataSpec) -> FetchedFiles | None:
    """The files behind `spec.url` that were fetched before, if they were."""
    place = _place(spec)
    try:
        record = from_text((place / RECORD).read_bytes())
        return FetchedFiles(_inner(place / "files"), str(record["sha256"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _checked(spec: DataSpec) -> str:
    """The address. Raises OfframpError where it is none."""
    url = spec.url or ""
    try:
        parts = urlsplit(url)
        named = bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:
        parts, named = urlsplit(""), False
    if parts.scheme not in ("http", "https") or not named:
        raise OfframpError(f"data.url must be an address of the web, http:// or https://, got {url!r}")
    if parts.username is not None or parts.password is not None:
        raise OfframpError(
            "data.url holds a name or a password, and studies are kept; fetch the files yourself and "
            "set data.root"
        )
    return url


def _place(spec: DataSpec) -> Path:
    folder = Path(os.environ.get("OFFRAMP_CACHE") or user_cache())
    name = hashlib.sha256(f"{spec.url} {spec.sha256 or ''}".encode()).hexdigest()
    return folder.absolute() / "data" / name


def _inner(files: Path) -> Path:
    """The one folder that an archive holds, which most do; else the folder of all its files."""
    visible = [p for p in files.iterdir() if not p.name.startswith(".") and p.name != "__MACOSX"]
    lone = visible[0] if len(visible) == 1 else files
    return lone if lone.is_dir() and lone.name.lower() not in SPLIT_FOLDERS["train"] else files


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """While one process of this machine fetches, others wait. Where nothing can be locked each fetches
    for itself."""
    with place.with_suffix(".lock").open("w") as file:
        with suppress(OSError, ImportError):  # of file systems, and of Windows
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(url: str, sha256: str | None, folder: Path) -> None:
    """Fill a new folder with what an address holds."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not re.fullmatch(r"[\w][\w.+ -]{0,199}", name):
        name = "data"
    path, files = folder / f"_{name}", folder / "files"  # no address has it fall on another name
    actual = _download(url, path)
    if sha256 is not None and actual != sha256.lower():
        raise OfframpError(
            f"{url} holds other bytes than the study wants: their SHA-256 is {actual}, and data.sha256 "
            f"is {sha256.lower()}; correct one of them"
        )
    files.mkdir()
    if name.lower().endswith(ARCHIVES):
        _unpack(path, files, url)
        path.unlink()
    else:
        path.rename(files / name)
    (folder / RECORD).write_text(json.dumps({"url": url, "sha256": actual}))


def _download(url: str, path: Path) -> str:
    """The SHA-256 of what was fetched into a file, after some tries."""
    for attempt in range(1, TRIES + 1):
        try:
            with path.open("wb") as file:
                return _try(url, file)
        except HTTPError as error:
            error.close()
            if error.code < 500 and error.code not in PASSING:
                raise OfframpError(
                    f"{url} answers {error.code} ({error.reason}); correct data.url, or fetch the files "
                    "yourself and set data.root"
                ) from None
            reason: Exception = error
        except (http.client.HTTPException, ConnectionError, TimeoutError, URLError) as error:
            reason = error  # any other OSError is the disk's
        if attempt < TRIES:
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
    words = " ".join(str(reason).split()) or type(reason).__name__
    raise Unwritable(f"{url} cannot be fetched ({words}); run the same command again when it can be")


def _try(url: str, file: IO[bytes]) -> str:
    digest, count, parts = hashlib.sha256(), 0, urlsplit(url)
    path, query = (quote(part, safe=string.punctuation) for part in (parts.path, parts.query))
    request = Request(parts._replace(path=path, query=query).geturl(), headers={"User-Agent": "offramp"})
    with urlopen(request, timeout=SILENCE_S) as response:
        final = urlsplit(response.url).scheme
        if final != parts.scheme and final != "https":
            raise OfframpError(
                f"{url} leads to {response.url}, which is less safe; name that in data.url"
            )
        length = response.length  # None where the server says none, or no number
        while True:
            try:
                block = response.read(BLOCK)
            except OSError as error:  # the server's, and not the disk's
                raise ConnectionError(str(error)) from error
            if not block:
                break
            file.write(block)
            digest.update(block)
            count += len(block)
    if length is not None and count != length:
        raise http.client.IncompleteRead(b"", length - count)
    return digest.hexdigest()


def _unpack(path: Path, folder: Path, url: str) -> None:
    """Raises OfframpError for what is neither a file nor a folder, for a name that leads out of `folder`
    or is there twice, and for more than the disk holds."""
    room = shutil.disk_usage(folder).free
    try:
        with closing(_members(path, url)) as members:
            for name, size, source in members:
                with source:
                    room -= size
                    if room < 0:
                        place = folder.parents[2]  # where it would be in the end
                        raise Unwritable(
                            f"{url} unpacks to more than the disk holds; free space for {place}"
                        )
                    target = _target(name, folder, url)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("xb") as file:
                        shutil.copyfileobj(source, file, BLOCK)
    except (FileExistsError, NotADirectoryError) as error:
        name = os.path.relpath(error.filename, folder)
        raise OfframpError(f"{url} holds {name!r} twice; mend the archive") from None
    except OfframpError:
        raise
    except Exception as error:  # zip, tar and all that packs them raise whatever they like
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's
        words = in_line(error)
        raise OfframpError(f"{url} cannot be unpacked ({words}); mend the archive") from error


def _members(path: Path, url: str) -> Generator[tuple[str, int, Any], None, None]:
    """The files of an archive: name, bytes, and the file to read them from."""
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as packed:
            for info in packed.infolist():
                mode = info.external_attr >> 16
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _refused(url, info.filename, "is neither a file nor a folder")
                if not info.is_dir():
                    yield info.filename, info.file_size, packed.open(info)
        return
    with _unpacked(path) as file, tarfile.open(fileobj=file, mode="r:") as bundled:
        while (member := bundled.next()) is not None:
            if not (member.isreg() or member.isdir()):
                raise _refused(url, member.name, "is neither a file nor a folder")
            file.left = math.inf
            if member.isreg():
                yield member.name, member.size, bundled.extractfile(member)
            file.left = HEADER
        file.left = math.inf
        # Checksums stand at the end, and tarfile takes damage before it for the end.
        while file.read(BLOCK):
            pass


@dataclass
class _Counted:
    """A file of which at most `left` bytes are read: the header of a member may claim any size for its
    name, and tarfile takes memory for it."""

    file: IO[bytes]
    left: float

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise tarfile.ReadError("a header of it is larger than any that archives have")
        return self.file.read(size)

    def seek(self, place: int) -> int:
        return self.file.seek(place)

    def tell(self) -> int:
        return self.file.tell()


@contextmanager
def _unpacked(path: Path) -> Iterator[Any]:
    """A tar archive, whatever packs it, before its first header, as `_Counted`."""
    with path.open("rb") as packed:
        start = packed.read(6)
    opened = next((unpack for magic, unpack in PACKED.items() if start.startswith(magic)), open)
    with opened(path, "rb") as file:
        yield _Counted(file, HEADER)


def _target(name: str, folder: Path, url: str) -> Path:
    """Where a file of an archive goes. Raises OfframpError where that is not in `folder`."""
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts or not inside.parts or "\\" in name:
        raise _refused(url, name, "leads out of its folder")
    if len(inside.parts) > DEEPEST:
        raise _refused(url, name[:99], f"lies in more than {DEEPEST - 1} folders")
    if has_controls(name):
        raise _refused(url, name, "has a name with control characters")
    return folder.joinpath(*inside.parts)


def _refused(url: str, name: str, why: str) -> OfframpError:
    return OfframpError(f"{url} is not unpacked: {name!r} {why}; take an archive of plain files")
