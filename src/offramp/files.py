"""Files and folders that appear whole or not at all, and the user's cache folder."""

from __future__ import annotations

import errno
import io
import logging
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from offramp.errors import OfframpError, Unwritable
from offramp.hashing import from_text, is_sealed_text, text, with_seal
from offramp.units import size

log = logging.getLogger("offramp.data")  # whose warnings every command shows

_MENDABLE = {  # by the user: a place that is not theirs, or none, or a disk or a server that is gone
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH),
}
_REMEDIES = {  # where a right would not help
    errno.EISDIR: "name a file",
    errno.EEXIST: "choose another place",
    errno.ENOTDIR: "choose another place",
}
DEVICES = Path("/dev")
FEW = 100  # files that a disk takes; what could not be written whole is gone again by then
# The most bytes that are read of a file that somebody else may have written, by its kind.
DOCUMENT = 16 * 2**20  # written by hand, or as short: a study, a policy
RECORDS = 128 * 2**20  # JSON of a store or a pack, some 30 kB a trial
TABLE = 2**30  # rows as text or Parquet, or an entry for each image
ARRAYS = 16 * 2**30  # weights and logits
CACHE_VERSION = 2  # of the layout of every document in the cache folder


def read_regular(path: Path, most: int) -> bytes:
    """The bytes of a file that somebody else may have written. most: bytes that it may have.

    Raises:
        OSError: it cannot be read, is a pipe or a device, which may never end, or has more bytes.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "its name has a null character", str(path))
    with open(path, "rb", opener=_not_waiting) as file:  # of a folder, Python itself raises
        _check(path, os.fstat(file.fileno()), most)
        return file.read(os.fstat(file.fileno()).st_size)


def check_regular(path: Path, most: int) -> None:
    """Raise OSError for what `read_regular` does not read, where a library reads the file."""
    _check(path, path.stat(), most)


def _check(path: Path, status: os.stat_result, most: int) -> None:
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # a folder cannot be read
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    if status.st_size > most:
        reason = f"it has {size(status.st_size)}, and at most {size(most)} are read"
        raise OSError(errno.EFBIG, reason, str(path))


def _not_waiting(path: str, flags: int) -> int:
    """Open a file; of a pipe, without waiting for whoever writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_regular_text(path: Path, most: int, encoding: str = "utf-8") -> str:
    """The text of a file, read as `read_regular` reads; any end of a line is `\\n`."""
    return io.TextIOWrapper(io.BytesIO(read_regular(path, most)), encoding).read()


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line why `path` could not be written, where the user can mend it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unwritable(
                f"{_used_up(path, error.errno)} while writing {path}; "
                "free space and run the same command again"
            ) from error
        if error.errno in _MENDABLE:
            remedy = _REMEDIES.get(error.errno or 0, "allow it or choose another folder")
            raise Unwritable(f"cannot write {path} ({error.strerror}); {remedy}") from error
        raise


def check_writable(path: Path) -> None:
    """Raises Unwritable now, before the work, where its result could not be written to `path`."""
    with writing(path):
        folder = next(place for place in path.absolute().parents if place.exists())
        tempfile.TemporaryFile(dir=folder).close()


def check_replaceable(path: Path) -> None:
    """As `check_writable`, of a file: what `replacing` cannot replace is refused too."""
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        _check_plain(path)
    check_writable(path)


def _check_plain(path: Path) -> None:
    """Raises FileExistsError for a device or a pipe."""
    special = path.exists() and not (path.is_file() or path.is_dir())
    # Root can rename over /dev/null, and over /dev/stdout, which is a link.
    if special or (path.is_symlink() and path.parent.resolve() == DEVICES):
        raise FileExistsError(errno.EEXIST, "it is a device or a pipe", str(path))


def _used_up(path: Path, number: int) -> str:
    """What is used up."""
    if number == errno.EDQUOT:
        return "your quota is used up"
    with suppress(OSError):
        disk = os.statvfs(next(place for place in path.absolute().parents if place.exists()))
        if disk.f_favail < FEW and disk.f_files:  # 0 of 0 where files are not counted
            return "the disk takes no more files (inodes, see `df -i`)"
    return "the disk is full"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there replaces `path` at once on success and
    is removed on any failure, a full disk included. Raises FileExistsError for a device or a pipe."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_plain(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that a user asked for, in the place of an earlier one: `replacing`, and errors as of
    `writing`."""
    with writing(path), replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def new_folder(path: Path, staging: Path) -> Iterator[Path]:
    """A temporary folder in `staging` (on the same file system) that becomes `path` by one rename
    when the block succeeds. What is already at `path` is moved away first, also what others put there
    meanwhile, and comes back if the rename fails."""
    staging.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = staging / f"{path.name}.{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        yield temporary
        for child in temporary.iterdir():
            sync(child)
        sync(temporary)
        grave = _put(temporary, path, staging)
        sync(path.parent)
        if grave is not None:
            shutil.rmtree(grave, ignore_errors=True)  # what stays of the old one does no harm
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(folder: Path, path: Path, staging: Path) -> Path | None:
    """Make `folder` `path`; where that lies now which was there."""
    if _exchanged(folder, path):  # else whoever is killed between two renames leaves nothing at `path`
        return folder
    while True:
        grave = None
        with suppress(FileNotFoundError):
            grave = _moved(path, staging)
        try:
            folder.replace(path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                continue  # somebody has just made one
            if grave is not None:
                grave.replace(path)
            raise
        return grave


def _exchanged(first: Path, second: Path) -> bool:
    """Let two paths change places at once, where both are there and the system and the disk can."""
    import ctypes  # few commands write folders

    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # a system that is not Linux
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE
    names = map(os.fsencode, (first, second))
    return bool(rename(here, next(names), here, next(names), exchange) == 0)


@contextmanager
def folder_at(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block succeeds, as of `new_folder`, which a
    staging folder of a name that nobody can guess holds, beside `path` until the end."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        with new_folder(path, staging) as folder:
            yield folder
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # made here; nothing of anybody else is in it


def discard(path: Path, staging: Path) -> None:
    """Take a folder away by one rename, then delete it: a reader sees all of it or none."""
    staging.mkdir(parents=True, exist_ok=True)
    remove_tree(_moved(path, staging))


def remove_tree(path: Path) -> None:
    """Delete a folder. Raises OfframpError for one that is too deep for Python before 3.13."""
    try:
        shutil.rmtree(path)
    except RecursionError:
        raise OfframpError(f"{path} is nested too deeply; remove it yourself: rm -rf {path}") from None


def _moved(path: Path, staging: Path) -> Path:
    grave = staging / f"{path.name}.{uuid.uuid4().hex}"
    path.replace(grave)
    return grave


def is_litter(path: Path) -> bool:
    """Whether it is a file that file managers leave in a folder that is looked at."""
    return path.name in (".DS_Store", "Thumbs.db") and path.is_file() and not path.is_symlink()


def home(variable: str, usual: str) -> Path:
    """offramp's folder of a kind, by the XDG specification: below what `variable` names, else below
    `usual` in the user's own. Relative paths are ignored, as the specification has it.

    Example:
        >>> home("XDG_CACHE_HOME", ".cache").name
        'offramp'
    """
    folder = Path(os.environ.get(variable, ""))
    return (folder if folder.is_absolute() else Path.home() / usual) / "offramp"


def user_cache() -> Path:
    """Where offramp keeps what it can make again: `$XDG_CACHE_HOME/offramp`, by default
    `~/.cache/offramp`. Nothing is kept among the data."""
    return home("XDG_CACHE_HOME", ".cache")


def read_cached(path: Path) -> dict[str, Any] | None:
    """The document that `write_cached` wrote to `path`.

    Returns:
        None where there is none, or one of another layout. None too for one that is not what was sealed
        (see `offramp.hashing.with_seal`), or was sealed for another path: a line of the log (level
        WARNING) says so, and the file goes.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return None
    with suppress(ValueError):
        document = from_text(data)
        if isinstance(document, dict):
            if document.get("version") != CACHE_VERSION:
                return None
            if is_sealed_text(data, document) and document.get("name") == path.name:
                return document
    log.warning("%s does not match its seal; what it held is found out anew", path)
    with suppress(OSError):
        path.unlink()
    return None


def write_cached(path: Path, record: Mapping[str, Any]) -> None:
    """Seal a record and keep it. A cache that cannot be written costs time, no more."""
    with suppress(OSError), replacing(path) as temporary:
        sealed = with_seal({**record, "version": CACHE_VERSION, "name": path.name})
        temporary.write_bytes(text(sealed))


def unlinked(root: Path, *parts: str) -> Path:
    """`root/part/…`, whether it exists or not; `root` itself may be a link.

    Raises OfframpError where that path, or a folder between it and `root`, is a link.
    """
    path = root
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise OfframpError(
                f"{path} is a link, and links in {root} are not followed; "
                "put the file or folder itself there, not a link"
            )
    return path


def resolved(path: Path) -> Path:
    """`path` without links and `..`, whether it exists or not.

    Raises:
        OfframpError: links lead round in a circle, for which each Python has another exception.
    """
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OfframpError(
                f"{path} is a link that leads round in a circle, or leads over one; "
                "put the file or folder itself there"
            ) from error
    return path.resolve()


def inside(root: Path, name: str) -> Path:
    """`root/name`, refused when it would leave `root` (`..`, an absolute path, a link).

    Raises:
        ValueError: it would leave `root`.
        OfframpError: as `resolved`.
    """
    base = resolved(root)
    path = resolved(base / name)
    if not path.is_relative_to(base):
        raise ValueError(f"{name!r} leaves the folder {root}")
    return path
