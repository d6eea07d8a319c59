"""A user's own code by name: `path/to/file.py:function`."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offramp.errors import OfframpError, nearest


@dataclass(frozen=True)
class Recorded:
    """Code that a store's record names: whoever made the store chose it, not the user.

    sha256: of its file, as recorded; None where the record lacks it.  trusted: whether the user lets it
    run.
    """

    sha256: str | None
    trusted: bool = False


@dataclass(frozen=True)
class Loaded:
    """A function of the user's. sha256: of the very bytes of its file that were run."""

    function: Callable[..., Any]
    sha256: str


def is_user_code(name: str) -> bool:
    """Whether a name means a function in a file."""
    return name.rpartition(":")[0].endswith(".py")


def file_of(name: str) -> Path:
    """The file that `path/file.py:function` names."""
    return Path(name.rpartition(":")[0]).expanduser()


def is_recorded(name: str, recorded: Recorded) -> bool:
    """Whether the file that `path/file.py:function` names is there, as it was recorded; nothing of it
    runs."""
    path = file_of(name)
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == recorded.sha256


def described(name: str, sha256: str) -> str:
    """A file and what identifies its content, in words."""
    return f"{file_of(name)} (SHA-256 {sha256[:12]})"


def untrusted(*files: str) -> OfframpError:
    """What to tell of code that a store names and that nobody has trusted. files: as `described`."""
    return OfframpError(
        f"the store names code to run, {' and '.join(files)}; read it, then add --trust-code "
        "(in Python: trust_code=True)"
    )


def forbid(names: Iterable[str]) -> None:
    """Raises OfframpError for the first of the names that means a user's own code."""
    for name in names:
        if is_user_code(name):
            raise OfframpError(
                f"{name} is code of a user's own, which --no-user-code forbids; leave that out, or name "
                "something that comes with offramp"
            )


def load(name: str, what: str, recorded: Recorded | None = None) -> Loaded:
    """The function that `path/file.py:function` names; `what` is the setting, for messages.

    recorded: where a store's record names it, and not the user. The file is read once: what is hashed
    and compared is what runs.

    Raises OfframpError when the file is missing or cannot be run, or has no such function; before
    anything of it runs, where it is not what was recorded or is not trusted.
    """
    path, wanted = file_of(name), name.rpartition(":")[2]
    if not path.is_file():
        raise OfframpError(f"there is no file {path}; {what} is path/to/file.py:function")
    source = path.read_bytes()
    sha256 = hashlib.sha256(source).hexdigest()
    if recorded is not None:
        if sha256 != recorded.sha256:
            raise OfframpError(
                f"{described(name, sha256)} is not what the store recorded "
                f"({(recorded.sha256 or 'nothing')[:12]}); bring it back as it was, or train again"
            )
        if not recorded.trusted:
            raise untrusted(described(name, sha256))
    spec = importlib.util.spec_from_file_location(f"offramp_user_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise OfframpError(f"{path} is not a Python file; {what} is path/to/file.py:function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up while they are made
    try:
        # Not by the loader, which reads the file again, or a compiled copy that lies beside it.
        exec(compile(source, str(path.resolve()), "exec", dont_inherit=True), module.__dict__)
    except Exception as error:
        raise failed(name, error) from error
    finally:
        del sys.modules[spec.name]
    known = {key: value for key, value in vars(module).items() if callable(value)}
    if wanted not in known:
        raise OfframpError(f"{path} has no function '{wanted}'{nearest(wanted, known)}")
    return Loaded(known[wanted], sha256)


def failed(name: str, error: Exception) -> OfframpError:
    """What to tell when the user's code raised `error`: its line, and the reason in one line."""
    here = str(file_of(name).resolve())
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == here]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f" at line {lines[-1]}" if lines else ""
    reason = " ".join(str(error).split())
    return OfframpError(f"{name} failed{where}: {type(error).__name__}: {reason}; correct the file")
