"""What a store needs of an object store, through fsspec: get, put, make, list, remove; and locks there.

An object store that is away for a while is asked again, and that is said; what a user can mend is one
line. Names are parts below the store's root, as everywhere in the store.
"""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from offramp.errors import OfframpError, Unwritable, in_line
from offramp.store.locks import Owner, owner_of
from offramp.store.place import Url
from offramp.units import duration

PATIENCE_S = 180.0  # that a store may be away
LONGEST_S = 5.0  # between two tries
ANNOUNCED_S = 5.0  # of silence, from which on it is said: what passes sooner troubles nobody
CONNECT_S, READ_S = 10, 60  # until a server that says nothing counts as away
AWAY = {  # of an OSError; EIO is what fsspec makes of answers that it has no word for
    *(errno.EIO, errno.EBUSY, errno.ETIMEDOUT, errno.EPIPE, errno.ECONNREFUSED, errno.ECONNRESET),
    *(errno.ECONNABORTED, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN),
    getattr(errno, "EREMOTEIO", errno.EIO),
}
AWAY_TYPES = {  # by name, so that none of these libraries is imported for it
    *("botocore.exceptions.HTTPClientError", "botocore.exceptions.IncompleteReadError"),
    *("botocore.exceptions.ConnectionError", "botocore.parsers.ResponseParserError"),
    *("aiohttp.client_exceptions.ClientConnectionError", "aiohttp.client_exceptions.ClientPayloadError"),
    *(
        "requests.exceptions.ConnectionError",
        "requests.exceptions.Timeout",
        "http.client.IncompleteRead",
    ),
}
NO_CREDENTIALS = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
    *("TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError"),
    *("DefaultCredentialsError", "RefreshError"),
}
S3 = ("s3", "s3a")
LISTS_BY_PREFIX = (*S3, "gs", "gcs")  # which spares two more requests where nothing is
BEAT = re.compile(r"(?P<file>.+\.lock)\.[0-9a-f]{32}\.beat", re.DOTALL)
EXTRA = "pip install 'offramp[cloud]'"

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Info:
    """What a listing says of an object."""

    size: int  # bytes
    tag: str  # changes with its content; "" where nothing tells
    modified: float | None  # seconds on the server's clock; None where nothing tells


class Remote:
    """The objects below one address. Every method raises OfframpError: Unwritable where the store does
    not answer for PATIENCE_S or may not be written."""

    def __init__(self, url: Url) -> None:
        """Raises OfframpError where a library is missing, and for an address of no known kind."""
        self.url = url
        if "@" in (server := url.text.partition("://")[2].partition("/")[0]) and ":" in server:
            raise OfframpError(
                "the address of a store holds a password, which would be printed wherever the store is "
                "named; leave it out, and give it in the settings of fsspec (FSSPEC_CONFIG_DIR)"
            )
        # One answer, not ranges of what another one may replace meanwhile; nor is its size asked first.
        self._whole = {"max_concurrency": 1} if url.scheme in S3 else {}
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise OfframpError(f"a store at {url} needs fsspec; {EXTRA}") from error
        try:
            self._fs, self._root = url_to_fs(str(url), **_options(url.scheme))
        except ImportError as error:
            raise OfframpError(f"a store at {url} needs more: {EXTRA} ({error})") from error
        except ValueError as error:
            raise OfframpError(f"no store can lie at {url} ({error}); use s3://… or gs://…") from error
        except Exception as error:
            raise self._explained(error, url) from error
        if url.scheme in S3:
            self._fs.retries = 1  # of its own, which nobody would hear of

    def get(self, *name: str) -> bytes | None:
        """The bytes of an object; None where there is none."""
        with suppress(FileNotFoundError):
            get = partial(self._fs.cat_file, self._path(name), **self._whole)
            data: bytes = self._tried(get, name)
            return data
        return None

    def get_many(self, names: Sequence[tuple[str, ...]]) -> list[bytes | None]:
        """The bytes of several objects, fetched at once; None also for what cannot be had just now."""
        paths = [self._path(name) for name in names]
        get = partial(self._fs.cat, paths, on_error="return", **self._whole)
        contents = self._tried(get, names[0])
        return [data if isinstance(data := contents.get(path), bytes) else None for path in paths]

    def put(self, data: bytes, *name: str) -> None:
        """Make an object, or replace it."""
        self._write(partial(self._fs.pipe_file, self._path(name), data), name)

    def make(self, data: bytes, *name: str) -> bool:
        """Make an object; False where there is another one of that name. What was made by a try whose
        answer was lost is one's own."""
        try:
            self._write(partial(self._fs.pipe_file, self._path(name), data, mode="create"), name)
        except FileExistsError:
            return self.get(*name) == data
        return True

    def _write(self, write: Callable[[], object], name: Sequence[str]) -> None:
        """What a server cannot find of a write is its bucket; or an upload in parts whose end was
        sent when the connection was cut, which is begun again."""
        bucket = self._root.partition("/")[0]

        def attempt() -> None:
            try:
                write()
            except FileNotFoundError as error:
                if self.url.scheme not in LISTS_BY_PREFIX or not self._fs.exists(bucket):
                    raise
                raise ConnectionError(f"an upload was lost ({in_line(error)})") from error

        try:
            self._tried(attempt, name)
        except FileNotFoundError as error:
            raise Unwritable(
                f"there is no bucket '{bucket}' for {self.url}; make it first, or name another place"
            ) from error

    def remove(self, *name: str) -> None:
        """Take an object away; nothing where there is none."""
        with suppress(FileNotFoundError):
            self._tried(partial(self._fs.rm_file, self._path(name)), name)

    def info(self, *name: str) -> Info | None:
        """Of one object; None where there is none."""
        with suppress(FileNotFoundError):
            fields = self._tried(partial(self._fs.info, self._path(name)), name)
            return _info(fields) if fields.get("type") == "file" else None
        return None

    def below(self, *folder: str) -> dict[tuple[str, ...], Info]:
        """All objects below a folder, by their whole names, sorted."""
        find = partial(self._fs.find, detail=True)
        if self.url.scheme in LISTS_BY_PREFIX and folder:
            find = partial(find, self._path(folder[:-1]), prefix=f"{folder[-1]}/")
        else:
            find = partial(find, self._path(folder))
        listing: Mapping[str, Mapping[str, Any]] = {}
        with suppress(FileNotFoundError):
            listing = self._tried(find, folder)
        start = self._root.rstrip("/") + "/"
        return {
            tuple(path[len(start) :].split("/")): _info(listing[path])
            for path in sorted(listing)
            if path.startswith(start) and listing[path].get("type") == "file"
        }

    def children(self) -> list[str]:
        """What lies directly in the root: objects, and folders of them."""
        paths: Iterable[object] = ()
        with suppress(FileNotFoundError):
            paths = self._tried(partial(self._fs.ls, self._root, detail=False), ())
        return sorted({str(path).rstrip("/").rpartition("/")[2] for path in paths})

    def _path(self, name: Sequence[str]) -> str:
        return "/".join((self._root.rstrip("/"), *name))

    def _tried(self, do: Callable[[], T], name: Sequence[str]) -> T:
        """What `do` answers, asked again while the store is away.

        Raises FileNotFoundError and FileExistsError as they come, everything else as OfframpError.
        """
        began, pause, announced = time.monotonic(), 0.1, False
        where = self.url.joinpath(*name)
        while True:
            answers = True
            try:
                return do()
            except (FileNotFoundError, FileExistsError):
                raise
            except Exception as error:
                if _condition_failed(error):
                    raise FileExistsError(str(where)) from error
                answers = False
                spent = time.monotonic() - began
                if not is_away(error):
                    raise self._explained(error, where) from error
                if spent >= PATIENCE_S:
                    raise Unwritable(
                        f"{self.url} has not answered for {duration(spent)} ({in_line(error)}); run the "
                        "same command again when it is back"
                    ) from error
                if not announced and spent >= ANNOUNCED_S:
                    log.warning(
                        "%s does not answer (%s); trying again for %s",
                        *(self.url, in_line(error), duration(PATIENCE_S - spent)),
                    )
                    announced = True
            finally:
                if announced and answers:
                    log.warning(
                        "%s answers again, after %s", self.url, duration(time.monotonic() - began)
                    )
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_S)

    def _explained(self, error: Exception, where: Url) -> OfframpError:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if kinds & NO_CREDENTIALS:
            how = "sign in (aws configure), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            if self.url.scheme in ("gs", "gcs"):
                how = "sign in (gcloud auth application-default login)"
            return Unwritable(f"no credentials for {self.url} ({in_line(error)}); {how}")
        if isinstance(error, PermissionError):
            if "time" in str(error) and "too large" in str(error):
                return Unwritable(f"{self.url}: {in_line(error)}; set this machine's clock right")
            return Unwritable(
                f"{where} may not be reached ({in_line(error)}); allow it, use other credentials, or "
                "look whether this machine's clock is right"
            )
        return Unwritable(f"{where} cannot be had ({in_line(error)}); mend it and run again")


def _condition_failed(error: Exception) -> bool:
    """Whether an object was not made because it is there (HTTP 412). s3fs knows that of Amazon's answers
    alone, which name the condition; those of Ceph and MinIO do not."""
    response = getattr(error.__cause__, "response", None)  # of botocore
    metadata = response.get("ResponseMetadata") if isinstance(response, dict) else None
    return isinstance(metadata, dict) and metadata.get("HTTPStatusCode") == 412


def is_away(error: BaseException) -> bool:
    """Whether an error may pass by itself: no connection, an answer cut short, a server in trouble."""
    names = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    if names & AWAY_TYPES or isinstance(error, TimeoutError | ConnectionError):
        return True
    code = getattr(error, "code", None)  # of gcsfs
    if isinstance(code, int | str) and str(code).isdigit():
        return int(code) >= 500 or int(code) in (408, 429)
    return isinstance(error, OSError) and error.errno in AWAY


def _options(scheme: str) -> dict[str, Any]:
    """What a file system of fsspec is made with: it remembers no listing, `cloud` does."""
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme in S3:  # tries are made above, and are announced
        options["config_kwargs"] = {
            **{"connect_timeout": CONNECT_S, "read_timeout": READ_S},
            "retries": {"mode": "standard", "total_max_attempts": 1},
        }
    return options


def _info(fields: Mapping[str, Any]) -> Info:
    """Each file system of fsspec has its own names for tags and times."""
    tags = (fields.get(name) for name in ("ETag", "etag", "md5Hash", "content_md5", "generation"))
    times = map(fields.get, ("LastModified", "last_modified", "updated", "mtime", "created"))
    modified = _seconds(next((time for time in times if time), None))
    return Info(int(fields.get("size") or 0), next((str(tag) for tag in tags if tag), ""), modified)


def _seconds(time: Any) -> float | None:
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(time)
        except ValueError:
            return None
    if isinstance(time, datetime):
        return time.timestamp()
    return float(time) if isinstance(time, int | float) else None


class LockObjects:
    """`locks.LockFiles` in a folder of an object store."""

    # `NAME.1.lock` is made by conditional create and never written again: an object has no handle that
    # would miss the name once it was removed, so a holder that slept could write over another's. Its
    # holder is heard of through `NAME.1.lock.TOKEN.beat` beside it, which is of one token alone.

    pause_s = 1.0

    def __init__(self, remote: Remote, folder: str) -> None:
        self._remote, self._folder = remote, folder
        self._beaten: set[str] = set()
        self._creates_once = False

    def begin(self) -> None:
        """Raises OfframpError where an object that is there is made once more: no lock would hold."""
        if self._creates_once:
            return
        probe = (self._folder, ".creates-once")
        self._remote.put(b"1", *probe)
        if self._remote.make(b"2", *probe):
            raise OfframpError(
                f"{self._remote.url} makes an object although it is there (no conditional create, "
                "If-None-Match), so nobody could work on it safely; take a store that does, or a folder"
            )
        self._creates_once = True

    def names(self) -> list[str]:
        return [name[-1] for name in self._remote.below(self._folder) if len(name) == 2]

    def read(self, name: str) -> bytes | None:
        content = self._remote.get(self._folder, name)
        if (owner := owner_of(content)) is None:
            return content
        beat = self._remote.get(self._folder, _beat(name, owner))
        return content if owner_of(beat) is None else beat

    def make(self, name: str, owner: Owner) -> Owner:
        if not self._remote.make(owner.text(), self._folder, name):
            raise FileExistsError(name)
        return owner

    def renew(self, name: str, owner: Owner) -> bool:
        beat = _beat(name, owner)
        self._remote.put(owner.text(), self._folder, beat)
        self._beaten.add(beat)
        if owner.wrote(self._remote.get(self._folder, name)):
            return True
        self._remote.remove(self._folder, beat)
        return False

    def remove(self, name: str, owner: Owner | None = None) -> None:
        with suppress(OfframpError):
            content = self._remote.get(self._folder, name)
            if owner is not None and not owner.wrote(content):
                return
            self._remote.remove(self._folder, name)
            current = owner_of(content)
            if current is not None and (owner is None or _beat(name, current) in self._beaten):
                self._remote.remove(self._folder, _beat(name, current))

    def is_copy(self, name: str, owner: Owner) -> bool:  # noqa: ARG002
        return False


def loose_beats(names: list[str]) -> list[str]:
    """Beats of locks that are gone: of a holder that slept while it was outdone."""
    files = set(names)
    return [name for name in names if (beat := BEAT.fullmatch(name)) and beat["file"] not in files]


def _beat(name: str, owner: Owner) -> str:
    return f"{name}.{owner.token}.beat"
